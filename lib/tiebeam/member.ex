defmodule Tiebeam.Member do
  @moduledoc """
  A member of the cluster, as this node sees it.
  """

  @enforce_keys [:node, :kind, :status, :creation, :incarnation]
  defstruct @enforce_keys

  @typedoc """
  - `:node` - the name of the node; one member per name.
  - `:kind` - `:beam` for a BEAM node with the package, `:rust` for a Rust node.
  - `:status` - `:alive`; `:suspect` when it did not answer lately and may still; `:dead` when it is gone without a
    word; `:left` when it said that it leaves.
  - `:creation` - which start of that name it is (`:erlang.system_info(:creation)` on that node).
  - `:incarnation` - its latest word about itself; rises within one creation.
  """
  @type t :: %__MODULE__{
          node: node,
          kind: :beam | :rust,
          status: status,
          creation: non_neg_integer,
          incarnation: non_neg_integer
        }

  @typedoc "What this node believes of a member."
  @type status :: :alive | :suspect | :dead | :left
end
