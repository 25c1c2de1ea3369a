//! Groups in a network made for them: each story is a rule of the module's documentation.

mod founding;
mod net;
mod writing;
