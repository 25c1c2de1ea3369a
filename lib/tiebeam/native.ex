defmodule Tiebeam.Native do
  @moduledoc false
  # The core as NIFs. Only `Tiebeam.Server`, `Tiebeam.Options`, `Tiebeam.Leadership.Store` and `Tiebeam.Placement` call them. The Rust side of these types is
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
          timing: timing,
          leadership: part | nil
        }

  @typedoc "This node's part in the group that agrees on a leader; `voters` are nodes, or how many."
  @type part :: %{
          voters: [node] | pos_integer,
          profile: :lan | :fast | :wan,
          session_ttl: pos_integer | nil,
          stored: {:memory, member :: non_neg_integer} | loaded
        }

  @typedoc "What the disk had. One core is made from it."
  @opaque loaded :: reference

  @typedoc "What is to be written to disk."
  @opaque pending :: reference

  @opaque store :: reference

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
          | {:persisted, token :: non_neg_integer}
          | {:unpersisted, why :: String.t()}
          | :woke

  @type command ::
          {:set_metadata, binary}
          | {:broadcast, binary}
          | registry_command
          | {:leadership, group_command, timeout :: non_neg_integer}
          | :leave

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

  @typedoc "Keys are bytes, values and names terms in the external term format."
  @type group_command ::
          {:put, key :: binary, value :: encoded, expect}
          | {:delete, key :: binary, expect}
          | {:get, key :: binary, read}
          | {:list, prefix :: binary, after_key :: binary | nil, limit :: non_neg_integer, read}
          | {:watch, id :: non_neg_integer, prefix :: binary}
          | {:unwatch, id :: non_neg_integer}
          | {:acquire, kind, name :: encoded, value :: encoded, ttl :: non_neg_integer | nil, pid :: encoded,
             wait :: boolean}
          | {:renew, kind, name :: encoded, token :: non_neg_integer, ttl :: non_neg_integer}
          | {:release, kind, name :: encoded, token :: non_neg_integer}
          | {:update, kind, name :: encoded, token :: non_neg_integer, value :: encoded}
          | {:holder, kind, name :: encoded, read}
          | :members
          | {:step_down, node | nil}
          | {:add_voter | :remove_voter, node}
          | :force_new_group

  @type expect :: :anything | {:revision, non_neg_integer} | {:value, encoded}
  @type read :: :linear | :local | {:at_least, non_neg_integer}
  @type kind :: :lock | :singleton | :name
  @type stored :: {revision :: pos_integer, value :: encoded}

  @type group_answer ::
          {:done, non_neg_integer}
          | {:differs, revision :: non_neg_integer}
          | {:held, value :: encoded | nil, token :: pos_integer}
          | :not_held
          | {:value, stored | nil}
          | {:values, [{key :: binary, stored}], more :: boolean}
          | {:holder, {token :: pos_integer, value :: encoded} | nil}
          | {:members, [map]}
          | :no_leader
          | {:not_founded, [node] | pos_integer}
          | {:no_replica, limit :: pos_integer}
          | :unknown
          | {:busy, limit :: pos_integer}
          | {:too_long, part :: atom, bytes :: non_neg_integer, limit :: pos_integer}
          | {:full, :sessions | :outstanding | :store | :claims}
          | {:no_member, node}
          | {:refused, why :: String.t()}
          | :stopped

  @type group_output ::
          {:row,
           {:put, key :: binary, revision :: pos_integer, value :: encoded}
           | {:deleted, key :: binary}
           | {:claimed, kind, name :: encoded, token :: pos_integer, value :: encoded}
           | {:freed, kind, name :: encoded, token :: pos_integer}}
          | {:led, term :: non_neg_integer, node | nil}
          | {:lease, term :: non_neg_integer, until :: non_neg_integer | nil}
          | {:lost, pid :: encoded, kind, name :: encoded, token :: pos_integer}
          | {:watched, id :: non_neg_integer, key :: binary, value :: encoded | nil, revision :: pos_integer}
          | {:members, voters :: [node], learners :: [node]}
          | {:foreign, node}
          | {:condition, Tiebeam.group_condition(), text :: String.t()}
          | {:stopped, :fault | :disk | :left, why :: String.t()}

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
          | {:persist, token :: non_neg_integer, pending}
          | {:leadership, group_output}
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
          | {:leadership, group_answer}
          | :no_group
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

  @doc """
  Opens the disk in `directory`, and reads all of it. `fresh` is who the node is if nothing was ever written. Runs on a dirty
  scheduler.
  """
  @spec store_open(directory :: Path.t(), node :: String.t(), cluster :: String.t(), fresh :: non_neg_integer) ::
          {:ok, {store, loaded}} | {:error, why :: String.t()}
  def store_open(_directory, _node, _cluster, _fresh), do: :erlang.nif_error(:nif_not_loaded)

  @doc "Makes writes durable, in order, all of them or none. Runs on a dirty scheduler."
  @spec store_write(store, [pending]) :: {:ok, count :: non_neg_integer} | {:error, why :: String.t()}
  def store_write(_store, _pending), do: :erlang.nif_error(:nif_not_loaded)

  @doc "The partition of a key."
  @spec partition(key :: binary, partitions :: non_neg_integer) :: non_neg_integer
  def partition(_key, _partitions), do: :erlang.nif_error(:nif_not_loaded)

  @doc "How much a node is meant for a key."
  @spec score(key :: binary, node) :: non_neg_integer
  def score(_key, _node), do: :erlang.nif_error(:nif_not_loaded)

  @doc "The nodes, the one that is most meant for the key first."
  @spec rank(key :: binary, [node]) :: [node]
  def rank(_key, _nodes), do: :erlang.nif_error(:nif_not_loaded)

  @typedoc "What a node sees of a task: see `Tiebeam.Placement.View`."
  @type view ::
          {name :: binary, most :: pos_integer, policy, holders :: [node | nil],
           participants :: [participant]}

  @type policy ::
          {on :: [node] | nil, label :: [label], avoid :: [label], prefer :: [label],
           {threshold :: non_neg_integer, max_concurrent :: pos_integer, cooldown :: non_neg_integer}}

  @type participant ::
          {node, weight :: pos_integer, [label], draining :: boolean, cordoned :: boolean,
           pinned :: [non_neg_integer]}

  @type label :: {key :: binary, value :: binary}

  @typedoc "What a node remembers between its turns; the time is in milliseconds."
  @type moves :: {last :: non_neg_integer | nil, under_way :: [non_neg_integer], by_hand :: boolean}

  @doc "What a node should let go of and ask for, when it has more to do, and what it remembers. Runs on a dirty scheduler."
  @spec turn(view, me :: node, now :: non_neg_integer, moves, by_hand :: boolean) ::
          {release :: [non_neg_integer], acquire :: [non_neg_integer], again :: non_neg_integer | nil, moves}
  def turn(_view, _me, _now, _moves, _by_hand), do: :erlang.nif_error(:nif_not_loaded)

  @doc "How many slots have yet to change their place, those that nobody holds included. Runs on a dirty scheduler."
  @spec unsettled(view) :: non_neg_integer
  def unsettled(_view), do: :erlang.nif_error(:nif_not_loaded)

  @doc "The nodes that may have slots, in order."
  @spec eligible(view) :: [node]
  def eligible(_view), do: :erlang.nif_error(:nif_not_loaded)

  @doc "The nodes that follow a slot, at most so many."
  @spec followers(view, slot :: non_neg_integer, most :: non_neg_integer) :: [node]
  def followers(_view, _slot, _most), do: :erlang.nif_error(:nif_not_loaded)

  @doc "The slots that a node follows, where each has so many followers. Runs on a dirty scheduler."
  @spec followed(view, me :: node, most :: non_neg_integer) :: [non_neg_integer]
  def followed(_view, _me, _most), do: :erlang.nif_error(:nif_not_loaded)

  @doc "Closes the disk; it can be opened again at once."
  @spec store_close(store) :: :ok
  def store_close(_store), do: :erlang.nif_error(:nif_not_loaded)
end
