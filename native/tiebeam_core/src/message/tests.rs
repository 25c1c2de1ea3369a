//! Bytes and messages, both ways, and bytes that are none.
