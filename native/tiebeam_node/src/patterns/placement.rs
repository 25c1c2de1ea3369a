//! Where the slots of a ring or a pool are: what is said of it beforehand, and what an operator asks for.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use tiebeam_core::NodeName;
use tiebeam_core::placement::{
    Labels, MAX_PINS, MAX_SLOTS, MAX_WEIGHT, Participant, Policy, Rebalance as Rules,
};
use tiebeam_wire::{Map, Pid, Term};

use super::slots::Task;
use crate::cluster::core_duration;
use crate::error::CallError;

/// How long an order may take: it changes what a node says of itself, and waits for nothing else.
const ORDER: Duration = Duration::from_secs(5);

/// Which nodes a ring's partitions, or a pool's replicas, may be on. The same on all nodes. Default: on all that take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    on: Option<BTreeSet<NodeName>>,
    label: Vec<(Vec<u8>, Vec<u8>)>,
    avoid: Vec<(Vec<u8>, Vec<u8>)>,
    prefer: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Placement {
    /// Everywhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only on these nodes. What is no name of a node is none of them.
    #[must_use]
    pub fn on(mut self, nodes: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let nodes = nodes.into_iter();
        self.on = Some(
            nodes
                .filter_map(|node| NodeName::parse(node.as_ref()).ok())
                .collect(),
        );
        self
    }

    /// Only on nodes that have this label; of one key, any of the values that are given.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.label.push(pair(key, value));
        self
    }

    /// Not on nodes that have this label.
    #[must_use]
    pub fn avoid(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.avoid.push(pair(key, value));
        self
    }

    /// Rather on nodes that have this label, where an even spread leaves a choice.
    #[must_use]
    pub fn prefer(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.prefer.push(pair(key, value));
        self
    }

    pub(super) fn apply_to(self, policy: &mut Policy) {
        policy.on = self.on;
        policy.label = self.label;
        policy.avoid = self.avoid;
        policy.prefer = self.prefer;
    }
}

fn pair(key: impl Into<String>, value: impl Into<String>) -> (Vec<u8>, Vec<u8>) {
    (key.into().into_bytes(), value.into().into_bytes())
}

/// When slots that somebody holds move for an even spread, and how many at a time. The same on all nodes. Slots that nobody holds are
/// always taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebalance {
    threshold: usize,
    max_concurrent: usize,
    cooldown: Duration,
}

impl Default for Rebalance {
    /// Even shares, all at once.
    fn default() -> Self {
        Self {
            threshold: 1,
            max_concurrent: MAX_SLOTS,
            cooldown: Duration::ZERO,
        }
    }
}

impl Rebalance {
    /// Even shares, all at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing moves while the greatest and the least share differ by no more slots than this. Default 1.
    #[must_use]
    pub fn threshold(mut self, slots: usize) -> Self {
        self.threshold = slots;
        self
    }

    /// At most so many slots of a node move at a time. Default: all that have to.
    #[must_use]
    pub fn max_concurrent(mut self, slots: usize) -> Self {
        self.max_concurrent = slots;
        self
    }

    /// How long a node waits between two moves. Default: not at all.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    pub(super) fn rules(self) -> Rules {
        Rules {
            threshold: self.threshold,
            max_concurrent: self.max_concurrent,
            cooldown: core_duration(self.cooldown),
        }
    }
}

// ---- what a node says of itself

/// What a manager's metadata says. A missing key, or a value of another shape, is the default.
pub(super) fn participant(meta: &Map) -> Participant {
    let said = |key| meta.get(&Term::atom(key));
    let is_true = |key| said(key).is_some_and(|value| value.is_atom("true"));
    let weight = said("weight").and_then(weight_of);
    let pinned = said("pinned").and_then(pins_of);
    let default = Participant::default();
    Participant {
        weight: weight.unwrap_or(default.weight),
        labels: said("labels").and_then(labels_of).unwrap_or_default(),
        draining: is_true("draining"),
        cordoned: is_true("cordoned"),
        pinned: pinned.unwrap_or_default(),
    }
}

/// What is not the default, as metadata.
pub(super) fn describe(participant: &Participant, meta: &mut Map) {
    let Participant {
        weight,
        labels,
        draining,
        cordoned,
        pinned,
    } = participant;
    let mut say = |key, value: Term| drop(meta.insert(Term::atom(key), value));
    if *draining {
        say("draining", Term::atom("true"));
    }
    if *cordoned {
        say("cordoned", Term::atom("true"));
    }
    if *weight != Participant::default().weight {
        say("weight", Term::from(*weight));
    }
    if !labels.is_empty() {
        say("labels", labels_term(labels));
    }
    if !pinned.is_empty() {
        let slots = pinned.iter().map(|slot| Term::from(*slot as u32));
        say("pinned", Term::list(slots.collect::<Vec<_>>()));
    }
}

/// Whoever says more than it may has said nothing.
fn pins_of(term: &Term) -> Option<BTreeSet<usize>> {
    let slots = term.as_list()?;
    if slots.len() > MAX_PINS {
        return None;
    }
    let slot = |slot: &Term| Some(u32::try_from(slot.as_integer()?).ok()? as usize);
    slots.iter().map(slot).collect()
}

fn weight_of(term: &Term) -> Option<u32> {
    let weight = u32::try_from(term.as_integer()?).ok()?;
    (1..=MAX_WEIGHT).contains(&weight).then_some(weight)
}

fn labels_of(term: &Term) -> Option<Labels> {
    let mut labels = Labels::new();
    for (key, value) in term.as_map()?.iter() {
        labels.insert(key.as_binary()?.to_vec(), value.as_binary()?.to_vec());
    }
    Participant::are_labels(&labels).then_some(labels)
}

fn labels_term(labels: &Labels) -> Term {
    let mut map = Map::new();
    for (key, value) in labels {
        map.insert(Term::binary(key), Term::binary(value));
    }
    Term::from(map)
}

// ---- orders

/// What any node may ask of a node's manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Rebalance,
    Cordon(bool),
    Drain,
    Pin(usize),
    Unpin(usize),
    Weight(u32),
    Labels(Labels),
}

impl Order {
    /// `None` if it is none, or asks for what cannot be.
    pub(super) fn parse(request: &Term) -> Option<Self> {
        if let Term::Atom(order) = request {
            return match order.as_str() {
                "rebalance" => Some(Self::Rebalance),
                "cordon" => Some(Self::Cordon(true)),
                "uncordon" => Some(Self::Cordon(false)),
                "drain" => Some(Self::Drain),
                _ => None,
            };
        }
        let [Term::Atom(order), argument] = request.as_tuple()? else {
            return None;
        };
        let slot = || usize::try_from(argument.as_integer()?).ok();
        match order.as_str() {
            "pin" => slot().map(Self::Pin),
            "unpin" => slot().map(Self::Unpin),
            "weight" => weight_of(argument).map(Self::Weight),
            "labels" => labels_of(argument).map(Self::Labels),
            _ => None,
        }
    }

    pub(super) fn to_term(&self) -> Term {
        let with = |order, argument: Term| Term::tuple([Term::atom(order), argument]);
        match self {
            Self::Rebalance => Term::atom("rebalance"),
            Self::Cordon(true) => Term::atom("cordon"),
            Self::Cordon(false) => Term::atom("uncordon"),
            Self::Drain => Term::atom("drain"),
            Self::Pin(slot) => with("pin", Term::from(*slot as u32)),
            Self::Unpin(slot) => with("unpin", Term::from(*slot as u32)),
            Self::Weight(weight) => with("weight", Term::from(*weight)),
            Self::Labels(labels) => with("labels", labels_term(labels)),
        }
    }

    /// What the node says of itself from now on.
    pub(super) fn change(self, participant: &mut Participant) {
        match self {
            Self::Pin(slot) => drop(participant.pinned.insert(slot)),
            Self::Unpin(slot) => drop(participant.pinned.remove(&slot)),
            Self::Weight(weight) => participant.weight = weight,
            Self::Labels(labels) => participant.labels = labels,
            Self::Cordon(cordoned) => participant.cordoned = cordoned,
            Self::Drain => participant.draining = true,
            Self::Rebalance => {}
        }
    }
}

/// The settings that rings and pools share, for the `impl` of either; they are in the field `task`.
macro_rules! task_settings {
    () => {
        /// How long nodes must have neither come nor gone before slots move. Default half a second.
        #[must_use]
        pub fn settle(mut self, settle: Duration) -> Self {
            self.task.settle = settle;
            self
        }

        /// Which nodes it may be on. The same on all nodes. Default: all that take part.
        #[must_use]
        pub fn placement(mut self, placement: Placement) -> Self {
            placement.apply_to(&mut self.task.policy);
            self
        }

        /// When slots that somebody holds move, and how many at a time. The same on all nodes. Default: at once, until shares are even.
        #[must_use]
        pub fn rebalance(mut self, rebalance: Rebalance) -> Self {
            self.task.policy.rebalance = rebalance.rules();
            self
        }

        /// This node's share, as against those of others: 1 to 1,000. Default 100.
        #[must_use]
        pub fn weight(mut self, weight: u32) -> Self {
            self.task.participant.weight = weight.clamp(1, MAX_WEIGHT);
            self
        }

        /// A label of this node, which a [`Placement`] may ask for. At most 16, whose keys and values have 64 bytes at most: with more or
        /// longer ones the node counts as one without labels.
        #[must_use]
        pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            let (key, value) = (key.into().into_bytes(), value.into().into_bytes());
            self.task.participant.labels.insert(key, value);
            self
        }

        /// How often what this node runs of it may fail, and be tried again, in which time: beyond it the node releases all, and takes part
        /// no more. Default: 3 times in 5 seconds.
        #[must_use]
        pub fn restarts(mut self, restarts: u32, period: Duration) -> Self {
            self.task.restarts = (restarts, period);
            self
        }

        /// An operator's hand on it, from any node of the cluster.
        pub fn operator(&self) -> Operator {
            Operator::new(self.task.clone())
        }
    };
}
pub(super) use task_settings;

/// An operator's hand on a ring or a pool, from any node of the cluster: what it asks of the nodes that take part, BEAM nodes included. An
/// order changes what a node says of itself, and all nodes follow that. It lasts until the node's part in the ring or the pool ends.
#[derive(Clone)]
pub struct Operator {
    task: Task,
}

/// A node that takes part in a ring or a pool.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Participation {
    /// Its process there.
    pub pid: Pid,
    /// What it says of itself.
    pub participant: Participant,
}

impl Operator {
    pub(super) fn new(task: Task) -> Self {
        Self { task }
    }

    /// The nodes that take part, by name, as far as this one knows. Reads a local table, never waits.
    pub fn participants(&self) -> Vec<Participation> {
        let mut participations = self.task.participations();
        participations.sort_by(|a, b| a.pid.node.as_str().cmp(b.pid.node.as_str()));
        participations
    }

    /// Moves a slot, a partition or a replica, to a node, and keeps it there: it is pinned to that node, and to no other, until
    /// [`Operator::unpin`].
    ///
    /// # Cancel safety
    /// Once polled, it may be pinned to some even if the future is dropped; so it is for the other orders.
    pub async fn move_to(&self, slot: u32, node: &str) -> Result<(), OperatorError> {
        let target = self.of(node)?;
        // There it is first, so that it is nobody's by chance in between; where two say so, the one that has it keeps it.
        self.order(&target.pid, &Order::Pin(slot as usize)).await?;
        self.unpin_but(slot, Some(&target.pid)).await
    }

    /// A slot that was moved by hand is spread as the others are.
    pub async fn unpin(&self, slot: u32) -> Result<(), OperatorError> {
        self.unpin_but(slot, None).await
    }

    async fn unpin_but(&self, slot: u32, but: Option<&Pid>) -> Result<(), OperatorError> {
        for Participation { pid, participant } in self.task.participations() {
            if Some(&pid) != but && participant.pinned.contains(&(slot as usize)) {
                self.order(&pid, &Order::Unpin(slot as usize)).await?;
            }
        }
        Ok(())
    }

    /// The node takes nothing new, and keeps what it has.
    pub async fn cordon(&self, node: &str) -> Result<(), OperatorError> {
        self.order_node(node, Order::Cordon(true)).await
    }

    /// The end of [`Operator::cordon`].
    pub async fn uncordon(&self, node: &str) -> Result<(), OperatorError> {
        self.order_node(node, Order::Cordon(false)).await
    }

    /// The node gives up all that it has, in good order, and takes part no more. Waits for it, at most so long.
    pub async fn drain(&self, node: &str, timeout: Duration) -> Result<(), OperatorError> {
        let pid = self.of(node)?.pid;
        self.ask(&pid, &Order::Drain, timeout).await
    }

    /// The share of the node, as against those of others: 1 to 1,000, where 100 is that of a node that says nothing.
    pub async fn weight(&self, node: &str, weight: u32) -> Result<(), OperatorError> {
        self.order_node(node, Order::Weight(weight)).await
    }

    /// The labels of the node, instead of those that it had.
    pub async fn labels<K: Into<String>, V: Into<String>>(
        &self,
        node: &str,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), OperatorError> {
        let labels = labels.into_iter().map(|(key, value)| pair(key, value));
        self.order_node(node, Order::Labels(labels.collect())).await
    }

    /// All nodes look at once whether slots should move, whatever the threshold and the cooldown, and to nodes that are preferred, too.
    pub async fn rebalance(&self) -> Result<(), OperatorError> {
        for Participation { pid, .. } in self.task.participations() {
            self.order(&pid, &Order::Rebalance).await?;
        }
        Ok(())
    }

    fn of(&self, node: &str) -> Result<Participation, OperatorError> {
        let mut participations = self.task.participations().into_iter();
        let found = participations.find(|one| one.pid.node.as_str() == node);
        found.ok_or_else(|| OperatorError::TakesNoPart(node.to_owned()))
    }

    async fn order_node(&self, node: &str, order: Order) -> Result<(), OperatorError> {
        let pid = self.of(node)?.pid;
        self.order(&pid, &order).await
    }

    async fn order(&self, pid: &Pid, order: &Order) -> Result<(), OperatorError> {
        self.ask(pid, order, ORDER).await
    }

    async fn ask(&self, pid: &Pid, order: &Order, timeout: Duration) -> Result<(), OperatorError> {
        let node = self.task.node();
        let reply = node.call_term(pid, order.to_term(), timeout).await?;
        if reply.is_atom("ok") {
            return Ok(());
        }
        match reply.as_tuple() {
            Some([error, reason]) if error.is_atom("error") => {
                Err(OperatorError::Refused(reason.clone()))
            }
            _ => Err(OperatorError::Refused(reply)),
        }
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("of", &self.task.group())
            .finish_non_exhaustive()
    }
}

/// Why an order was not carried out.
#[derive(Debug)]
#[non_exhaustive]
pub enum OperatorError {
    /// As far as this node knows that node takes no part.
    TakesNoPart(String),
    /// The node refuses: its reason, such as `no_such_slot`, `cordoned` or `not_eligible`. `{bad_request, Request}`: it knows no such order.
    Refused(Term),
    /// The node did not answer.
    Call(CallError),
}

impl fmt::Display for OperatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakesNoPart(node) => write!(f, "{node} takes no part in it"),
            Self::Refused(reason) => write!(f, "the node refuses: {reason}"),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OperatorError {}

impl From<CallError> for OperatorError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_itself_is_written_as_it_is_read() {
        let says = Participant {
            weight: 250,
            labels: Labels::from([(b"zone".to_vec(), b"a".to_vec())]),
            draining: true,
            cordoned: true,
            pinned: BTreeSet::from([0, 7]),
        };
        let mut meta = Map::new();
        describe(&says, &mut meta);
        assert_eq!(participant(&meta), says);
        let mut meta = Map::new();
        describe(&Participant::default(), &mut meta);
        assert_eq!(meta, Map::new());
    }

    /// The same lines are read on the BEAM.
    #[test]
    fn what_others_say_is_read_as_on_the_beam() {
        let text = include_str!("../../tests/vectors/placement.txt");
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines: Vec<&str> = lines.collect();
        assert!(lines.len() > 30 && lines.len().is_multiple_of(2));
        for pair in lines.chunks(2) {
            let bytes = (0..pair[0].len()).step_by(2);
            let bytes = bytes.map(|at| u8::from_str_radix(&pair[0][at..at + 2], 16).unwrap());
            let bytes = bytes::Bytes::from(bytes.collect::<Vec<u8>>());
            // What is no map says nothing.
            let said = match tiebeam_wire::decode::decode(&bytes).unwrap() {
                Term::Map(meta) => participant(&meta),
                _ => Participant::default(),
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let labels = said.labels.iter();
            let labels: Vec<String> = labels
                .map(|(key, value)| format!("{}:{}", text(key), text(value)))
                .collect();
            let pinned: Vec<String> = said.pinned.iter().map(usize::to_string).collect();
            let read = format!(
                "weight={} labels={} draining={} cordoned={} pinned={}",
                said.weight,
                labels.join(","),
                said.draining,
                said.cordoned,
                pinned.join(",")
            );
            assert_eq!(read, pair[1], "{}", pair[0]);
        }
    }

    #[test]
    fn orders_are_written_as_they_are_read() {
        for text in [
            "rebalance",
            "cordon",
            "uncordon",
            "drain",
            "{pin,7}",
            "{unpin,7}",
            "{weight,1000}",
            "{labels,#{<<\"zone\">> => <<\"a\">>}}",
        ] {
            let order = Order::parse(&Term::parse(text).unwrap()).unwrap();
            assert_eq!(order.to_term().to_string(), text);
        }
        for text in [
            "move",
            "{pin,-1}",
            "{pin,a}",
            "{weight,0}",
            "{weight,1001}",
            "{labels,[]}",
            "7",
        ] {
            assert_eq!(Order::parse(&Term::parse(text).unwrap()), None, "{text}");
        }
    }
}
