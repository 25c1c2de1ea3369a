defmodule Tiebeam.Placement.Participant do
  @moduledoc false
  # What a node that takes part in a ring or a pool says of itself: a map, the metadata of its manager in the group of all that take
  # part. It is the same in both languages; what a release does not know it ignores, and what has another shape than it should is
  # taken for the default.
  #
  # | key | | default |
  # |---|---|---|
  # | `:draining` | `true` from those that take nothing any more and are about to give up what they have | |
  # | `:cordoned` | `true` from those that take nothing new | |
  # | `:weight` | 1 to 1,000 | 100 |
  # | `:labels` | a map of binaries, at most 16, each key and value of at most 64 bytes | `%{}` |
  # | `:pinned` | the slots that were moved here by hand, at most 256 | `[]` |
  # | `:partitions`, `:followers` | of a ring: how many there are, and how many followers of each | |

  @default_weight 100
  @max_weight 1000
  @max_labels 16
  @max_label_bytes 64
  @max_pins 256

  defstruct weight: @default_weight, labels: %{}, draining: false, cordoned: false, pinned: []

  @type t :: %__MODULE__{
          weight: pos_integer,
          labels: %{binary => binary},
          draining: boolean,
          cordoned: boolean,
          pinned: [non_neg_integer]
        }

  def max_pins, do: @max_pins

  @doc "What a node says."
  @spec of(term) :: t
  def of(metadata) when is_map(metadata) do
    weight = metadata[:weight]
    labels = metadata[:labels]
    pinned = metadata[:pinned]

    %__MODULE__{
      weight: if(weight?(weight), do: weight, else: @default_weight),
      labels: if(labels?(labels), do: labels, else: %{}),
      draining: metadata[:draining] == true,
      cordoned: metadata[:cordoned] == true,
      pinned: if(pinned?(pinned), do: Enum.sort(Enum.uniq(pinned)), else: [])
    }
  end

  def of(_metadata), do: %__MODULE__{}

  @doc "The metadata that says it: only what is not the default."
  @spec metadata(t) :: map
  def metadata(%__MODULE__{} = participant) do
    for {key, value} <- Map.from_struct(participant),
        value != Map.get(%__MODULE__{}, key),
        into: %{},
        do: {key, value}
  end

  @doc "For the core."
  @spec native(node, t) :: Tiebeam.Native.participant()
  def native(node, %__MODULE__{} = participant) do
    %{weight: weight, labels: labels, draining: draining, cordoned: cordoned, pinned: pinned} = participant
    {node, weight, Map.to_list(labels), draining, cordoned, pinned}
  end

  @spec weight?(term) :: boolean
  def weight?(weight), do: is_integer(weight) and weight in 1..@max_weight

  @spec labels?(term) :: boolean
  def labels?(labels), do: is_map(labels) and map_size(labels) <= @max_labels and Enum.all?(labels, &label?/1)

  defp label?({key, value}), do: label_text?(key) and label_text?(value)
  defp label_text?(text), do: is_binary(text) and byte_size(text) <= @max_label_bytes

  # Whoever says more than it may has said nothing, whatever the order.
  defp pinned?(pinned) do
    is_list(pinned) and List.improper?(pinned) == false and length(pinned) <= @max_pins and
      Enum.all?(pinned, &(is_integer(&1) and &1 in 0..0xFFFFFFFF))
  end

  @doc "Labels as a user writes them: a map or a keyword list, of binaries or atoms. Raises if they are none."
  @spec labels!(term, what :: String.t()) :: %{binary => binary}
  def labels!(labels, what) do
    made = Map.new(pairs!(labels, what))

    if labels?(made),
      do: made,
      else:
        raise(
          ArgumentError,
          "#{what} must be at most #{@max_labels}, of at most #{@max_label_bytes} bytes each, got: #{inspect(labels)}"
        )
  end

  @doc "Pairs of a label's key and its value, as a user writes them. Raises if they are none."
  @spec pairs!(term, what :: String.t()) :: [{binary, binary}]
  def pairs!(pairs, what) do
    if (is_list(pairs) or is_map(pairs)) and Enum.all?(pairs, &match?({_key, _value}, &1)) do
      for {key, value} <- pairs, do: {text!(key, what), text!(value, what)}
    else
      raise ArgumentError, "#{what} must be labels such as [zone: \"a\"], got: #{inspect(pairs)}"
    end
  end

  defp text!(text, what) do
    text = if is_atom(text) and text not in [nil, true, false], do: Atom.to_string(text), else: text

    if label_text?(text),
      do: text,
      else:
        raise(
          ArgumentError,
          "#{what}: the keys and values of labels are texts of at most #{@max_label_bytes} bytes, got: #{inspect(text)}"
        )
  end
end
