//! A client of the OCI distribution API: auth, transport, pull and push.
