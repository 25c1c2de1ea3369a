defmodule Tiebeam.Event do
  @moduledoc """
  What subscribers receive: see `Tiebeam.subscribe/1`.

      {:tiebeam, MyApp.Cluster, {:member, :up, %Tiebeam.Member{}}}

  Every message is `{:tiebeam, name, event}`, where `name` is the cluster's local name. Events come in the order in
  which this node learnt of them; a subscriber that starts from `Tiebeam.members/1` after it subscribed misses nothing.

  A process of another node subscribes with `GenServer.call({:tiebeam, node}, {:subscribe, self()})`, whether that is a
  BEAM node or a Rust node. In its messages `name` is the identity of the cluster, a string. While the link to it is
  busy it misses events, and is told how many: `{:missed, count}`.

  ## Telemetry

  Where the `:telemetry` application is in the code path when the cluster starts, every event is executed as well, in a
  process of its own. The metadata is `%{cluster: name}` and what is listed here.

  | event | measurements | metadata |
  |---|---|---|
  | `[:tiebeam, :member, :up]`, `:suspect`, `:recovered`, `:updated`, `:down`, `:left` | `%{count: 1}` | `:member` |
  | `[:tiebeam, :contested]` | `%{count: 1}` | `:member`, `:reason` |
  | `[:tiebeam, :conflict]` | `%{count: 1}` | `:member`, `:creation` |
  | `[:tiebeam, :refused]` | `%{count: 1}` | `:node`, `:identity` |
  | `[:tiebeam, :stalled]` | `%{milliseconds: late}` | |
  | `[:tiebeam, :health]` | `%{multiplier: multiplier}` | |
  | `[:tiebeam, :leader]` | `%{term: term}` | `:node`, the leader or `nil` |
  | `[:tiebeam, :group]` | `%{count: 1}` | `:condition`, see `t:Tiebeam.group_condition/0` |
  | `[:tiebeam, :broadcast]` | `%{bytes: size}` | `:node` |
  | `[:tiebeam, :registry, :registered]`, `:updated`, `:unregistered`, `:joined`, `:left` | `%{count: entries}`: names or memberships that this node's table shows, or shows no more, since the last one | |
  | `[:tiebeam, :registry, :conflict]` | `%{count: 1}` | `:scope`, `:name`, `:pid` of this node, which lost the name; `:kept`, or `nil` |
  | `[:tiebeam, :registry, :purge]` | `%{names: count, memberships: count, duration: native}` | `:node`, whose entries went, and `:reason`: `:down`, `:left` or `:restarted` |

  `Tiebeam.Discovery` has events of its own.
  """

  alias Tiebeam.Member

  @typedoc "The message in a subscriber's mailbox."
  @type message :: {:tiebeam, name :: atom | String.t(), t}

  @typedoc """
  - `{:member, :up, member}` - a member is here that was not.
  - `{:member, :suspect, member}` - it does not answer, and is declared dead unless something is heard of it in time.
  - `{:member, :recovered, member}` - a suspect is alive after all.
  - `{:member, :updated, member}` - it has new metadata.
  - `{:member, :down, member}` - it is gone without a word. A restart of a node is `:down` of the old creation, then
    `:up` of the new one.
  - `{:member, :left, member}` - it said that it leaves.
  - `{:contested, member, reason}` - a member seems dead, but what this node knows does not suffice to close its
    connection. It stays listed as a suspect, and its connection decides (OTP's net ticks).
  - `{:conflict, member, creation}` - two running nodes have one name: `member` is kept for as long as it answers, the
    other start of that name is `creation`.
  - `{:refused, node, cluster}` - the connected node `node` is in another cluster, whose identity is `cluster`. Told
    once per connection, on both sides.
  - `{:stalled, milliseconds}` - this node itself stood still: its timers came late by so much. Verdicts were put off.
  - `{:health, multiplier}` - how well this node keeps up; see `t:Tiebeam.health/0`.
  - `{:group, condition}` - something is wrong with this node's part in the group that agrees on a leader, or nothing is any more; see
    `t:Tiebeam.group_condition/0`. That voters are missing is told after five seconds, and then each minute. Who leads is told to the
    subscribers of `Tiebeam.Leader`.
  - `{:broadcast, node, binary}` - a member told all others something; see `Tiebeam.broadcast/2`.
  - `{:missed, count}` - to processes of other nodes: so many events were not sent, because the link was busy.
  """
  @type t ::
          {:member, :up | :suspect | :recovered | :updated | :down | :left, Member.t()}
          | {:contested, Member.t(), contest}
          | {:conflict, Member.t(), creation :: non_neg_integer}
          | {:refused, node, cluster :: String.t()}
          | {:stalled, milliseconds :: non_neg_integer}
          | {:health, multiplier :: pos_integer}
          | {:group, Tiebeam.group_condition()}
          | {:broadcast, node, binary}
          | {:missed, count :: pos_integer}

  @typedoc """
  What speaks against a verdict.

  - `:off` - the option `:evict` is off.
  - `:minority` - this node sees no majority of the members that were last here together: it may be the one that is cut
    off.
  - `:heard` - its connection carried something since the suspicion began.
  - `:unhealthy` - this node is slow itself, or stood still lately.
  - `:unreachable` - a node without the package is not connected to this one, so it cannot be told.
  - `:alone` - it is a node without the package, and fewer than two members found that it does not answer.
  """
  @type contest :: :off | :minority | :heard | :unhealthy | :unreachable | :alone

  @doc false
  # What of the core's notices concerns subscribers; that of the leader has subscribers of its own.
  @spec from_notice(Tiebeam.Native.notice() | Tiebeam.Leadership.Driver.notice()) ::
          t | {:leader, node | nil, term :: non_neg_integer} | nil
  def from_notice({change, %Member{} = member})
      when change in [:up, :suspect, :recovered, :updated, :down, :left],
      do: {:member, change, member}

  def from_notice({change, %Member{}}) when change in [:refreshed, :forgotten], do: nil
  def from_notice({:ignored, _node, _why}), do: nil
  def from_notice({:foreign_group, _node}), do: nil
  def from_notice({:group_stopped, _why}), do: nil
  def from_notice({:group, condition, _text}), do: {:group, condition}
  def from_notice(notice), do: notice
end
