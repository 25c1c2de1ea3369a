defmodule Tiebeam.Placement.View do
  @moduledoc false
  # What a node sees of a ring or a pool, as the core takes it.

  alias Tiebeam.Native
  alias Tiebeam.Placement.{Participant, Policy}
  alias Tiebeam.Registry.Name

  @doc "`held` has the node that holds each slot; what nobody holds is not there."
  @spec new(
          Tiebeam.Registry.name(),
          slots :: pos_integer,
          most :: pos_integer,
          Policy.t(),
          held :: %{non_neg_integer => node},
          %{node => Participant.t()}
        ) :: Native.view()
  def new(task, slots, most, policy, held, participants) do
    {:ok, name} = Name.encode(task)
    holders = for slot <- 0..(slots - 1), do: held[slot]
    participants = for {node, participant} <- participants, do: Participant.native(node, participant)
    {name, most, Policy.native(policy), holders, participants}
  end

  @doc "What each node says of itself, by the members of the group of those that take part."
  @spec participants([{pid, map}]) :: %{node => Participant.t()}
  def participants(members),
    do: for({pid, metadata} <- members, into: %{}, do: {node(pid), Participant.of(metadata)})
end
