defmodule Tiebeam.Error do
  @moduledoc """
  Something outside the caller's power prevents what was asked for. Misuse raises `ArgumentError` instead.

  `:reason` is for matching, the message for people:

  - `{:process_taken, name, pid}` - another process has the registered name that members send to.
  - `{:busy, limit}` - so many broadcasts are under way; nothing was sent.
  - `{:store, why}` - what the group agreed on cannot be read from the option `:data_dir`.
  - `:left` - this node has left the cluster; nothing was changed or sent.
  """

  defexception [:reason]

  @typedoc "An error and its reason."
  @type t :: %__MODULE__{reason: reason}

  @typedoc "Why."
  @type reason ::
          {:process_taken, name :: atom, pid}
          | {:busy, limit :: pos_integer}
          | {:store, why :: String.t()}
          | :left

  @impl true
  def message(%__MODULE__{reason: {:process_taken, name, pid}}) do
    "#{inspect(pid)} already has the registered name #{inspect(name)}, to which members of this cluster would send. " <>
      "A second cluster on one node needs another name, the same on all its nodes: `process: :another`"
  end

  def message(%__MODULE__{reason: {:busy, limit}}) do
    "#{limit} broadcasts are under way, which is the limit. Try again in a second"
  end

  def message(%__MODULE__{reason: {:store, why}}), do: why

  def message(%__MODULE__{reason: :left}) do
    "this node has left the cluster. To come back, restart the cluster in its supervisor"
  end
end
