//! NIF
