//! The status in the words of Prometheus.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tiebeam_node::Status as MemberStatus;

use super::{Cluster, Counters, Status};

/// What [`text()`] is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a node, in the OpenMetrics text format.
pub(super) fn text(status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tiebeam");
    registry.register_collector(Box::new(status));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Status {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut sink = Sink(encoder);
        sink.gauge("uptime_seconds", "Time since the node began", self.uptime)?;
        let connected = self.connected.len() as f64;
        sink.gauge("connected_nodes", "Visible nodes", connected)?;
        let processes = self.processes as f64;
        sink.gauge("processes", "Processes of the node", processes)?;
        match &self.cluster {
            Some(cluster) => cluster.encode(&mut sink),
            None => Ok(()),
        }
    }
}

impl Cluster {
    fn encode(&self, sink: &mut Sink<'_>) -> Result<(), fmt::Error> {
        let help = "Members of the cluster, by what this node takes them for";
        let mut members = sink
            .0
            .encode_descriptor("members", help, None, MetricType::Gauge)?;
        for status in [
            MemberStatus::Alive,
            MemberStatus::Suspect,
            MemberStatus::Dead,
            MemberStatus::Left,
        ] {
            let count = ConstGauge::new(self.count(status) as f64);
            count.encode(members.encode_family(&[("status", super::status_word(status))])?)?;
        }
        let term = self.term as f64;
        sink.gauge(
            "term",
            "The latest term of the group that agrees on a leader",
            term,
        )?;
        let led = f64::from(u8::from(self.leader.is_some()));
        sink.gauge("led", "1 while a leader is known", led)?;
        let names = self.names.count as f64;
        sink.gauge("names", "Names of the default scope", names)?;
        let groups = self.groups as f64;
        sink.gauge("groups", "Groups of the default scope", groups)?;
        let multiplier = f64::from(self.health.multiplier);
        sink.gauge(
            "health_multiplier",
            "1 when all is well, up to 8",
            multiplier,
        )?;
        let minority = f64::from(u8::from(self.health.minority));
        sink.gauge("minority", "1 while no majority is seen", minority)?;
        let stalls = self.health.stalls;
        sink.counter("stalls", "Times the node stood still", stalls)?;
        self.metrics.encode(sink)
    }
}

impl Counters {
    fn encode(&self, sink: &mut Sink<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in [
            ("messages_sent", "Messages of the membership", self.sent),
            ("sent_bytes", "Their bytes", self.sent_bytes),
            (
                "messages_received",
                "Messages of the membership",
                self.received,
            ),
            ("received_bytes", "Their bytes", self.received_bytes),
            ("probes", "Members probed", self.probes),
            (
                "probes_failed",
                "Probes that nobody answered",
                self.probes_failed,
            ),
            (
                "suspicions",
                "Suspicions raised by this node",
                self.suspicions,
            ),
            ("deaths", "Members declared dead", self.deaths),
            (
                "evictions",
                "Connections of dead members closed",
                self.evictions,
            ),
            ("contested", "Verdicts not carried out", self.contested),
        ] {
            sink.counter(name, help, value)?;
        }
        Ok(())
    }
}

struct Sink<'a>(DescriptorEncoder<'a>);

impl Sink<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(value);
        gauge.encode(
            self.0
                .encode_descriptor(name, help, None, gauge.metric_type())?,
        )
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(value);
        counter.encode(
            self.0
                .encode_descriptor(name, help, None, counter.metric_type())?,
        )
    }
}
