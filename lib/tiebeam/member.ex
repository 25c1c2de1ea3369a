defmodule Tiebeam.Member do
  @moduledoc """
  A member of the cluster, as this node sees it.
  """

  @enforce_keys [:node, :kind, :status, :creation, :incarnation, :metadata, :round_trip]
  defstruct @enforce_keys

  @typedoc """
  - `:node` - the name of the node; one member per name.
  - `:kind` - `:beam` for a BEAM node with the package, `:rust` for a Rust node, `:plain` for a BEAM node without the
    package: up to three members, its guardians, ask its kernel whether it lives.
  - `:status` - `:alive`; `:suspect` when it did not answer lately and may still; `:dead` when it is gone without a
    word; `:left` when it said that it leaves.
  - `:creation` - which start of that name it is (`:erlang.system_info(:creation)` on that node); 0 where nobody knows.
  - `:incarnation` - its latest word about itself; rises within one creation.
  - `:metadata` - what it tells about itself, see `Tiebeam.set_metadata/2`; empty by default.
  - `:round_trip` - the time to it and back, smoothed, in microseconds; `nil` before the first answer, and for this
    node itself. As of at most a second before the last message or timer.
  """
  @type t :: %__MODULE__{
          node: node,
          kind: :beam | :rust | :plain,
          status: status,
          creation: non_neg_integer,
          incarnation: non_neg_integer,
          metadata: binary,
          round_trip: non_neg_integer | nil
        }

  @typedoc "What this node believes of a member."
  @type status :: :alive | :suspect | :dead | :left
end
