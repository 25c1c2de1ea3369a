defmodule Tiebeam.Discovery.Candidates do
  @moduledoc false
  # The nodes that a discovery has found: when each may be dialled, and which have vanished. Pure: time is an argument, in
  # milliseconds. Names are strings.

  # Distinct names that are remembered: more than any cluster has. Beyond that those unseen for longest are forgotten, a quarter
  # at once, so that whoever makes up names costs this memory and little time.
  @max 4096
  @quarter div(@max, 4)

  # In so many complete answers in succession a node must be missing to have vanished: name servers that cut or rotate their
  # answers leave out other nodes each time.
  @missed_answers 3

  # By name: the look that found it last, the complete answers in succession that missed it, the dials in succession that failed,
  # when it may be dialled again, whether it is being dialled.
  defstruct nodes: %{}, looks: 0

  @typep candidate :: %{
           seen: pos_integer,
           missed: non_neg_integer,
           failures: non_neg_integer,
           not_before: integer | nil,
           dialling: boolean
         }
  @type t :: %__MODULE__{nodes: %{String.t() => candidate}, looks: non_neg_integer}

  @doc "Takes what a look has found; answers the nodes that have vanished, too, and forgets them."
  @spec found(t, [String.t()], boolean) :: {[String.t()], t}
  def found(candidates, names, complete?) do
    looks = candidates.looks + 1
    names = Enum.take(names, @max)
    nodes = Enum.reduce(names, make_room(candidates.nodes, names), &see(&2, &1, looks))
    candidates = %{candidates | nodes: nodes, looks: looks}

    # An answer without any node is more likely a mishap than the end of them all.
    if complete? and names != [], do: miss(candidates), else: {[], candidates}
  end

  defp see(nodes, name, looks) do
    case nodes do
      %{^name => candidate} ->
        Map.put(nodes, name, %{candidate | seen: looks, missed: 0})

      # Those that are being dialled are in the way.
      nodes when map_size(nodes) >= @max ->
        nodes

      nodes ->
        Map.put(nodes, name, %{seen: looks, missed: 0, failures: 0, not_before: nil, dialling: false})
    end
  end

  defp make_room(nodes, names) do
    new = Enum.count(names, &(not is_map_key(nodes, &1)))
    excess = map_size(nodes) + new - @max

    if excess > 0 do
      old = for {name, %{seen: seen, dialling: false}} <- Map.drop(nodes, names), do: {seen, name}
      forgotten = old |> Enum.sort() |> Enum.take(max(excess, @quarter))
      Map.drop(nodes, for({_seen, name} <- forgotten, do: name))
    else
      nodes
    end
  end

  defp miss(%{nodes: nodes, looks: looks} = candidates) do
    nodes =
      Map.new(nodes, fn
        {name, %{seen: ^looks} = candidate} -> {name, candidate}
        {name, candidate} -> {name, %{candidate | missed: candidate.missed + 1}}
      end)

    vanished =
      for {name, %{missed: missed, dialling: false}} when missed >= @missed_answers <- nodes, do: name

    {Enum.sort(vanished), %{candidates | nodes: Map.drop(nodes, vanished)}}
  end

  @doc """
  Of the nodes that the last look found, at most `room` to dial now: not connected, not dialled already, not failed a moment
  ago; those that failed least come first. Counts them as being dialled.
  """
  @spec next_dials(t, integer, non_neg_integer, (String.t() -> boolean)) :: {[String.t()], t}
  def next_dials(%{looks: looks} = candidates, now, room, connected?) do
    due =
      for {name, %{seen: ^looks, dialling: false} = candidate} <- candidates.nodes,
          candidate.not_before == nil or candidate.not_before <= now,
          not connected?.(name),
          do: {candidate.failures, name}

    names = for {_failures, name} <- due |> Enum.sort() |> Enum.take(room), do: name

    {names,
     Enum.reduce(names, candidates, &update(&2, &1, fn candidate -> %{candidate | dialling: true} end))}
  end

  @doc "A dial has reached its node."
  @spec reached(t, String.t()) :: t
  def reached(candidates, name),
    do: update(candidates, name, &%{&1 | dialling: false, failures: 0, not_before: nil})

  @doc """
  A dial has not reached its node, which then rests for what `pause` makes of the number of failures. Answers that number,
  too.
  """
  @spec failed(t, String.t(), integer, (pos_integer -> pos_integer)) :: {non_neg_integer, t}
  def failed(candidates, name, now, pause) do
    candidates =
      update(candidates, name, fn candidate ->
        failures = candidate.failures + 1
        %{candidate | dialling: false, failures: failures, not_before: now + pause.(failures)}
      end)

    case candidates.nodes do
      %{^name => %{failures: failures}} -> {failures, candidates}
      _forgotten -> {0, candidates}
    end
  end

  defp update(%{nodes: nodes} = candidates, name, fun) do
    case nodes do
      %{^name => candidate} -> %{candidates | nodes: Map.put(nodes, name, fun.(candidate))}
      _forgotten -> candidates
    end
  end
end
