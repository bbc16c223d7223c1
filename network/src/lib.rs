//! Bridges, addresses, published ports and the name service.
