//! tiebeam_sim
