defmodule Tiebeam.Test.Node do
  @moduledoc """
  A node that a test started: see `Tiebeam.Test`.
  """

  @enforce_keys [:node, :kind, :cookie, :process]
  defstruct @enforce_keys ++ [:os_pid]

  @typedoc """
  - `:node` - its name.
  - `:kind` - `:beam` or `:rust`.
  - `:cookie` - the one that it has.
  - `:process` - of this VM: OTP's `:peer` that steers a BEAM node, or the `Tiebeam.Command` of a Rust node.
  - `:os_pid` - its number in the operating system.
  """
  @type t :: %__MODULE__{
          node: node,
          kind: :beam | :rust,
          cookie: atom,
          process: pid,
          os_pid: pos_integer
        }
end
