defmodule Tiebeam.Native do
  @moduledoc false
  # The core as NIFs. Only `Tiebeam.Server` and `Tiebeam.Options` call them. The Rust side of these types is
  # `native/tiebeam_nif/src/terms.rs`; what they mean is documented in `native/tiebeam_core`.

  @on_load :load

  @opaque cluster :: reference

  @typedoc "The core's configuration."
  @type settings :: %{
          node: node,
          creation: 0..0xFFFFFFFF,
          incarnation: non_neg_integer,
          cluster: String.t(),
          join: [node],
          seed: non_neg_integer,
          metadata: binary,
          evict: boolean,
          entries_per_scope: pos_integer,
          timing: timing
        }

  @typedoc "How often things happen; durations in milliseconds."
  @type timing :: %{
          probe_interval: pos_integer,
          probe_timeout: pos_integer,
          indirect_probes: non_neg_integer,
          suspicion_multiplier: pos_integer,
          suspicion_max_multiplier: pos_integer,
          retransmit_multiplier: pos_integer,
          gossip_interval: pos_integer,
          gossip_fanout: pos_integer,
          sync_interval: pos_integer,
          greet_first: pos_integer,
          greet_max: pos_integer,
          forget_after: pos_integer
        }

  @type event ::
          {:received, node, binary}
          | {:connected, node, visible :: boolean}
          | {:disconnected, node}
          | {:observed, node, probe :: non_neg_integer}
          | {:sampled, node, received :: non_neg_integer | nil}
          | {:asked, call :: non_neg_integer, command}
          | {:exited, encoded}
          | {:checked, id :: non_neg_integer, alive :: boolean}
          | {:resolved, id :: non_neg_integer, :older | :younger | :neither}
          | :woke

  @type command :: {:set_metadata, binary} | {:broadcast, binary} | registry_command | :leave

  @typedoc "A term in the external term format."
  @type encoded :: binary

  @type registry_command ::
          {:register, scope :: atom, name :: encoded, pid :: encoded, meta :: encoded, on_conflict,
           resolve :: boolean}
          | {:claim, scope :: atom, name :: encoded, pid :: encoded, meta :: encoded}
          | {:unregister, scope :: atom, name :: encoded, pid :: encoded | nil}
          | {:update, scope :: atom, name :: encoded, meta :: encoded}
          | {:join, scope :: atom, group :: encoded, pid :: encoded, meta :: encoded}
          | {:leave, scope :: atom, group :: encoded, pid :: encoded}

  @type on_conflict :: :exit | :notify | :standby

  @type action ::
          {:send, node, binary}
          | {:observe, node, probe :: non_neg_integer}
          | {:sample, node}
          | {:evict, node}
          | {:evict_at, at :: node, node}
          | {:table, change}
          | {:registered, call :: non_neg_integer}
          | {:lost, key, pid :: encoded, kept :: encoded | nil, on_conflict}
          | {:promoted, key, pid :: encoded}
          | {:resolve, id :: non_neg_integer, older :: entry, younger :: entry}
          | {:check, id :: non_neg_integer, pid :: encoded}
          | {:answer, call :: non_neg_integer, answer}
          | {:notify, notice}

  @type key :: {scope :: atom, name :: encoded}
  @type entry :: {scope :: atom, name :: encoded, pid :: encoded, meta :: encoded, node}
  @typedoc "What the NIF could decode: nearly all entries."
  @type row :: {{scope :: atom, name :: term}, pid, meta :: term, node}
  @type gone :: :unregistered | :exited | :lost | :missed

  @type change ::
          {:registered | :updated | :joined | :rejoined, row | entry}
          | {:replaced, entry, was :: encoded}
          | {:unregistered | :left, key, pid :: encoded, gone}
          | {:purged, node, creation :: non_neg_integer, :down | :left | :restarted,
             names :: [{scope :: atom, name :: term}],
             memberships :: [{scope :: atom, group :: term, pid :: term}]}

  @type answer ::
          :left
          | :done
          | {:too_long, bytes :: non_neg_integer, limit :: pos_integer}
          | {:busy, limit :: pos_integer}
          | {:taken, pid :: encoded, node}
          | :unknown
          | :exited
          | {:refused,
             {:length, part :: atom, bytes :: non_neg_integer, limit :: pos_integer}
             | {:scope_full | :scopes_full | :full, limit :: pos_integer}}

  @type notice ::
          {:up | :down | :left | :refreshed | :suspect | :recovered | :updated | :forgotten,
           Tiebeam.Member.t()}
          | {:contested, Tiebeam.Member.t(), Tiebeam.Event.contest()}
          | {:stalled, milliseconds :: non_neg_integer}
          | {:health, multiplier :: pos_integer}
          | {:conflict, kept :: Tiebeam.Member.t(), refused :: non_neg_integer}
          | {:broadcast, node, binary}
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

  @doc "The values of a profile."
  @spec timing(:lan | :fast | :wan) :: timing
  def timing(_profile), do: :erlang.nif_error(:nif_not_loaded)

  @doc "Tells what happened at `now` (microseconds, never going back), in order."
  @spec step(cluster, now :: non_neg_integer, [event]) :: {[action], deadline :: non_neg_integer | nil}
  def step(_cluster, _now, _events), do: :erlang.nif_error(:nif_not_loaded)

  @spec view(cluster) :: [Tiebeam.Member.t()]
  def view(_cluster), do: :erlang.nif_error(:nif_not_loaded)

  @doc "How many more entries this node may register for certain, in whatever scopes."
  @spec room(cluster) :: non_neg_integer
  def room(_cluster), do: :erlang.nif_error(:nif_not_loaded)

  @spec health(cluster) :: Tiebeam.health()
  def health(_cluster), do: :erlang.nif_error(:nif_not_loaded)

  @spec metrics(cluster) :: Tiebeam.metrics()
  def metrics(_cluster), do: :erlang.nif_error(:nif_not_loaded)
end
