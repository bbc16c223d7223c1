//! Every unsafe block and raw system call of ctr, as small safe functions with named errors.
