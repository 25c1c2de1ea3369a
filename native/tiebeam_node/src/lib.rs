//! tiebeam_node
