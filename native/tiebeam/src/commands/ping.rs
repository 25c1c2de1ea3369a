//! `tiebeam ping`: whether a node answers, and how fast.

use crate::arguments::{PingArguments, seconds};
use crate::failure::Failure;
use crate::visitor::{self, Visitor};

pub(crate) async fn run(arguments: PingArguments) -> Result<(), Failure> {
    let visitor = Visitor::to(&arguments.node, &arguments.cookie, &arguments.network).await?;
    let pong = visitor
        .node()
        .ping(&arguments.node, seconds(arguments.timeout))
        .await;
    visitor.leave().await;
    let milliseconds = pong?.as_secs_f64() * 1000.0;
    visitor::print(format_args!("pong ({milliseconds:.1} ms)"))
}
