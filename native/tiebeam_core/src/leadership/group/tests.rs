//! Groups in a network made for them: each story is a rule of the module's documentation.

mod chaos;
mod claims;
mod founding;
mod leading;
mod members;
mod net;
mod snapshots;
mod writing;
