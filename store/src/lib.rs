//! What ctr keeps on disk: blobs, layers, images, containers, volumes.
