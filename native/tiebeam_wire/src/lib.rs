//! tiebeam_wire
