//! tiebeam_core
