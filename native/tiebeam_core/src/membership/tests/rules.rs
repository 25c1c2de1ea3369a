//! The rules of SWIM and Lifeguard as one node follows them.
