//! The rules of membership, one by one, on a clock of the test's own.
