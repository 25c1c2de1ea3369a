defmodule Tiebeam.Native do
  @moduledoc false
  # The core as three NIFs. Only `Tiebeam.Server` and `Tiebeam.Options` call them. The Rust side of these types is
  # `native/tiebeam_nif/src/terms.rs`; what they mean is documented in `native/tiebeam_core`.

  @on_load :load

  @opaque cluster :: reference

  @typedoc "The core's configuration; times in milliseconds."
  @type settings :: %{
          node: node,
          creation: 0..0xFFFFFFFF,
          incarnation: non_neg_integer,
          cluster: String.t(),
          join: [node],
          seed: non_neg_integer,
          timing: %{
            greet_first: pos_integer,
            greet_max: pos_integer,
            sync_every: pos_integer,
            forget_after: pos_integer
          }
        }

  @type event ::
          {:received, node, binary}
          | {:connected, node}
          | {:disconnected, node}
          | {:asked, call :: non_neg_integer, :leave}
          | :woke

  @type action ::
          {:send, node, binary}
          | {:answer, call :: non_neg_integer, :left}
          | {:notify, notice}

  @type notice ::
          {:up | :down | :left | :refreshed | :forgotten, Tiebeam.Member.t()}
          | {:refused, node, cluster :: String.t()}
          | {:ignored, node, why :: String.t()}

  @doc false
  def load do
    # Missing when the beam files were copied without `priv`; the functions below say so when called.
    path = Application.app_dir(:tiebeam, "priv/native/tiebeam_nif")
    :erlang.load_nif(String.to_charlist(path), 0)
  end

  @spec new(settings) :: {:ok, cluster} | {:error, message :: String.t()}
  def new(_settings), do: :erlang.nif_error(:nif_not_loaded)

  @doc "Tells what happened at `now` (milliseconds, never going back), in order."
  @spec step(cluster, now :: non_neg_integer, [event]) :: {[action], deadline :: non_neg_integer | nil}
  def step(_cluster, _now, _events), do: :erlang.nif_error(:nif_not_loaded)

  @spec view(cluster) :: [Tiebeam.Member.t()]
  def view(_cluster), do: :erlang.nif_error(:nif_not_loaded)
end
