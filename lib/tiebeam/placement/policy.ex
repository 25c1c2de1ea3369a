defmodule Tiebeam.Placement.Policy do
  @moduledoc false
  # Where a ring or a pool may be, and how it moves: the options `:placement` and `:rebalance`, which are the same on all nodes.

  alias Tiebeam.Placement.Participant

  defstruct on: nil,
            label: [],
            avoid: [],
            prefer: [],
            away_from: nil,
            threshold: 1,
            max_concurrent: 4096,
            cooldown: 0

  @type t :: %__MODULE__{
          on: [node, ...] | nil,
          label: [{binary, binary}],
          avoid: [{binary, binary}],
          prefer: [{binary, binary}],
          away_from: Tiebeam.Registry.name() | nil,
          threshold: non_neg_integer,
          max_concurrent: pos_integer,
          cooldown: non_neg_integer
        }

  # The slots of a task.
  @max_slots 4096

  # A day.
  @max_cooldown 86_400_000

  @doc "The options `:placement` and `:rebalance`. Raises if they are none."
  @spec of!(placement :: term, rebalance :: term) :: t
  def of!(placement, rebalance) do
    policy = Enum.reduce(keyword!(placement, :placement), %__MODULE__{}, &placement!/2)
    Enum.reduce(keyword!(rebalance, :rebalance), policy, &rebalance!/2)
  end

  defp keyword!(options, name) do
    if Keyword.keyword?(options),
      do: options,
      else:
        raise(ArgumentError, "the option #{inspect(name)} must be a keyword list, got: #{inspect(options)}")
  end

  defp placement!({:on, [_ | _] = nodes}, policy) do
    if Enum.all?(nodes, &is_atom/1), do: %{policy | on: nodes}, else: wrong!(:placement, :on, nodes)
  end

  defp placement!({key, labels}, policy) when key in [:label, :avoid, :prefer] do
    Map.put(policy, key, Participant.pairs!(labels, "#{inspect(key)} of the option :placement"))
  end

  defp placement!({:away_from, pool}, policy) when pool != nil, do: %{policy | away_from: pool}
  defp placement!({key, value}, _policy), do: wrong!(:placement, key, value)

  defp rebalance!({:threshold, slots}, policy) when is_integer(slots) and slots in 0..@max_slots,
    do: %{policy | threshold: slots}

  defp rebalance!({:max_concurrent, slots}, policy) when is_integer(slots) and slots in 1..@max_slots,
    do: %{policy | max_concurrent: slots}

  defp rebalance!({:cooldown, time}, policy) when is_integer(time) and time in 0..@max_cooldown,
    do: %{policy | cooldown: time}

  defp rebalance!({key, value}, _policy), do: wrong!(:rebalance, key, value)

  defp wrong!(option, key, value) do
    known = %{
      placement: "on: [node], label:, avoid: and prefer: labels, and away_from: the name of a pool",
      rebalance: "threshold: slots, max_concurrent: slots from 1, and cooldown: milliseconds"
    }

    raise ArgumentError,
          "the option #{inspect(option)} has #{known[option]}; it cannot have #{key}: #{inspect(value)}"
  end

  @doc "For the core."
  @spec native(t) :: Tiebeam.Native.policy()
  def native(%__MODULE__{} = policy) do
    %{threshold: threshold, max_concurrent: most, cooldown: cooldown} = policy
    {policy.on, policy.label, policy.avoid, policy.prefer, {threshold, most, cooldown}}
  end
end
