defmodule Tiebeam.Event do
  @moduledoc """
  What subscribers receive: see `Tiebeam.subscribe/1`.

      {:tiebeam, MyApp.Cluster, {:member, :up, %Tiebeam.Member{}}}

  Every message is `{:tiebeam, name, event}`, where `name` is the cluster's local name. Events come in the order in
  which this node learnt of them; a subscriber that starts from `Tiebeam.members/1` after it subscribed misses nothing.
  """

  alias Tiebeam.Member

  @typedoc "The message in a subscriber's mailbox."
  @type message :: {:tiebeam, name :: atom, t}

  @typedoc """
  - `{:member, :up, member}` - a member is here that was not.
  - `{:member, :suspect, member}` - it did not answer lately, and may still.
  - `{:member, :down, member}` - it is gone without a word. A restart of a node is `:down` of the old creation, then
    `:up` of the new one.
  - `{:member, :left, member}` - it said that it leaves.
  - `{:refused, node, cluster}` - the connected node `node` is in another cluster, whose identity is `cluster`. Told
    once per connection, on both sides.
  """
  @type t ::
          {:member, :up | :suspect | :down | :left, Member.t()}
          | {:refused, node, cluster :: String.t()}

  @doc false
  # What of the core's notices concerns subscribers.
  @spec from_notice(Tiebeam.Native.notice()) :: t | nil
  def from_notice({change, member}) when change in [:up, :down, :left], do: {:member, change, member}
  def from_notice({:refused, _node, _cluster} = refused), do: refused
  def from_notice({change, _member}) when change in [:refreshed, :forgotten], do: nil
  def from_notice({:ignored, _node, _why}), do: nil
end
