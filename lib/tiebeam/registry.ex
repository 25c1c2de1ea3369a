defmodule Tiebeam.Registry do
  @moduledoc """
  Names for processes, the same on every node of the cluster, BEAM or Rust.

      iex> Tiebeam.Registry.register(MyApp.Cluster, "cache", self(), %{zone: 1})
      :ok
      iex> Tiebeam.Registry.whereis(MyApp.Cluster, "cache") == self()
      true

  A name works wherever OTP takes one:

      iex> {:ok, pid} = Agent.start_link(fn -> 1 end, name: {:via, Tiebeam.Registry, {MyApp.Cluster, :counter}})
      iex> Agent.get({:via, Tiebeam.Registry, {MyApp.Cluster, :counter}}, & &1)
      1
      iex> Tiebeam.Registry.whereis(MyApp.Cluster, :counter) == pid
      true

  The names are `{cluster, name}`, `{cluster, scope, name}` and `{cluster, scope, name, metadata}`.

  ## Consistency

  Each node is the authority for the processes that run on it, and tells all others. Therefore:

  - Look-ups read a table of this node and never wait. What this node registered is there when `register/5` answers; the other
    nodes show it about a round trip later.
  - `register/5` always works, also while nodes cannot hear of each other. Two nodes that register one name at the same time, or
    on two sides of a split, may both be answered `:ok`. When they hear of each other the older registration keeps the name, by
    a logical clock that all nodes share; the other process is told, as `:on_conflict` says. So a name is one process's in a
    connected cluster at rest, and not at every instant.
  - A name goes when its process ends, on all nodes; the names of a node go as soon as the node is known to be down, and come
    back when it does.

  The scope `:strong` is the other choice: see [below](#module-the-scope-strong).

  ## Names, metadata, scopes

  A name is an atom, a UTF-8 binary, an integer, or a tuple or list of these; in the external term format it has at most 1,024
  bytes. Metadata is any term of at most 4,096 bytes; every node holds all of it. Names of different scopes have nothing to do
  with each other; a scope is an atom, and is there when it is used. The scope `:global` shows the names of OTP's `:global` to the
  look-ups.

  ## The scope :strong

  Names of this scope are agreed upon by the group of `Tiebeam.Leader`: a name is one process's at every instant, and
  registering needs a majority of the voters. There are no conflicts. Look-ups read a table of this node, which may be a
  little old.

      Tiebeam.Registry.register(MyApp.Cluster, "primary", self(), nil, scope: :strong)
      {:via, Tiebeam.Registry, {MyApp.Cluster, :strong, "primary"}}

  A name goes when its process ends, and when its node is gone or cut off for as long as the option `:session_ttl` of the
  cluster; then the process, if it still runs, gets `{:tiebeam, cluster, {:lost, :name, name, token}}`, before anybody else
  can have the name. `token/2` is a number that grows with each registration, by which others can refuse a process that does
  not know yet. Errors are also those of `t:Tiebeam.Leader.error/0`. Metadata cannot be changed, no events are sent, and
  `register_async/5` and groups are not there.

  ## A registry of one's own

      defmodule MyApp.Rooms do
        use Tiebeam.Registry, cluster: MyApp.Cluster, scope: :rooms
      end

  gives the module these functions for the names of one scope; further options are those of `register/5`. All that this module can do is still there for the
  same names.

  - `register_name(name, pid)` - `:ok`, `{:error, :already_registered}` or `{:error, reason}`, see `t:error/0`.
  - `unregister_name(name)` - `:ok`, `{:error, :not_found}` or `{:error, reason}`.
  - `lookup_name(name)` - `{:ok, pid}` or `{:error, :not_found}`.
  - `via(name)` - the name for OTP: `GenServer.start_link(Room, 7, name: MyApp.Rooms.via(7))`.
  - `child_spec/1` - for a place behind the cluster in a supervision tree, `children = [{Tiebeam, name: MyApp.Cluster}, MyApp.Rooms]`: it starts
    no process, and fails with words where there is no cluster.

  All but `child_spec/1` may be redefined.

  ## From other nodes

  Any node, with the package or without, asks any member: `GenServer.call({:tiebeam, node}, request)`.

  | request | reply |
  |---|---|
  | `{:whereis, scope, name}` | a pid, or `nil` |
  | `{:lookup, scope, name}` | `{pid, metadata}`, or `nil` |
  | `{:register, scope, name, pid}`, `{:register, scope, name, pid, metadata}` | `:ok`, `{:error, {:taken, pid}}`, `{:error, {:invalid, text}}` |
  | `{:unregister, scope, name}` | `:ok`, `{:error, reason}` |
  | `{:members, scope, group}` | a list of pids |
  | `{:join, scope, group, pid}`, and with metadata; `{:leave, scope, group, pid}` | as for names |
  | `{:names, scope}` | a list of `{name, pid, metadata}` |
  | `{:groups, scope}` | a list of `{group, [{pid, metadata}]}` |

  Where no metadata is given the scope may be left out. A node takes names and memberships only from its own processes. The member that is asked watches the process and answers for it, so a process is registered at a member only if its own node
  is none.

  ## Events

  Subscribers get `{:tiebeam, cluster, event}`, in the order in which this node learnt of them; the table shows it already, and
  who registered may have been answered before.

  - `{:registered, scope, name, pid, metadata}` - the name is there.
  - `{:updated, scope, name, pid, metadata}` - it has other metadata, or another node answers for it.
  - `{:replaced, scope, name, pid, metadata, was}` - it is another process's; `was` lost a conflict, or ended.
  - `{:unregistered, scope, name, pid, reason}` - it is gone: `:unregistered`, `:exited`, `:lost` (a conflict), `:missed` (while
    this node did not hear), `:down`, `:left` or `:restarted` (of its node). In the scope `:strong` it is `:freed`, whichever it was.
  - `{:joined | :rejoined, scope, group, pid, metadata}`, `{:left, scope, group, pid, reason}` - the same for groups.

  A process that lost its name, or got it back, is told so without subscribing: see `register/5`.
  """

  import Kernel, except: [send: 2]

  alias Tiebeam.{Error, Retry, Table}
  alias Tiebeam.Registry.{Claim, Name, Strong}

  # The pause between two attempts of `register_with_retry/5`, in milliseconds.
  @retry_first 10
  @retry_max 500

  # How long a registration in the scope `:strong` waits for a majority, in milliseconds: as a call.
  @strong_timeout 5_000

  # How often a name that was taken and is free a moment later is tried for again: each time another process had it.
  @max_attempts 10

  @typedoc "A name: an atom, a UTF-8 binary, an integer, or a tuple or list of these."
  @type name :: atom | String.t() | integer | tuple | [name]

  @typedoc "Any term of at most 4,096 bytes in the external term format."
  @type metadata :: term

  @typedoc "Names of one scope; `:default` unless said."
  @type scope :: atom

  @typedoc """
  Why nothing was changed; limits are part of it.

  - `{:taken, pid}` - another process has the name. Its node was asked whether it still runs, unless it did not answer in a second.
  - `:unknown` - nobody has the name, or the process is not in the group.
  - `:noproc` - the process ended meanwhile.
  - `{:invalid_name, why}`, `{:invalid_scope, why}` - a term that is none.
  - `{:too_long, part, bytes, limit}` - the `:name`, `:metadata` or `:scope` has too many bytes.
  - `{:not_local, pid, node}` - a process is registered on its own node.
  - `{:scope_full, limit}`, `{:scopes_full, limit}`, `{:full, limit}` - this node has as many entries in the scope, scopes, or
    entries as it may.
  - `{:noconnection, node}`, `{:too_many_guests, limit}` - of processes of nodes that have no registry.
  - `:left` - this node has left the cluster.
  - in the scope `:strong` also what `t:Tiebeam.Leader.error/0` says; `:unknown` has the meaning of that one when registering.
  """
  @type error ::
          {:taken, pid | nil}
          | :unknown
          | :noproc
          | Name.invalid()
          | {:not_local, pid, node}
          | {:scope_full | :scopes_full | :full, limit :: pos_integer}
          | {:noconnection, node}
          | {:too_many_guests, limit :: pos_integer}
          | Tiebeam.Leader.error()

  @typedoc "A name in OTP's sense, behind `{:via, Tiebeam.Registry, _}`."
  @type via ::
          {Tiebeam.name(), name} | {Tiebeam.name(), scope, name} | {Tiebeam.name(), scope, name, metadata}

  @doc """
  Gives a name to a process of this node. A process may have many names; one that has this one already gets the new metadata
  and options.

  The answer comes when this node's table shows the name; nobody else is waited for, unless the name is taken: then the node of
  its process is asked whether that still runs, for at most a second. Blocks for the time of a call, at most five seconds, then
  exits like `GenServer.call/2`.

  Options:

  - `:scope` - an atom. Default: `:default`.
  - `:on_conflict` - what becomes of the process when it turns out that an older registration of the name exists:
    `:exit` ends it with the reason `{:name_conflict, name, kept}`; `:notify` sends it
    `{:tiebeam, cluster, {:lost, scope, name, kept}}`; `:standby` sends the same, and the process has the name as soon as it is
    free, which it is told by `{:tiebeam, cluster, {:promoted, scope, name}}`. `kept` is the process that has the name, or `nil`.
    A process that waits is forgotten when the cluster's server crashes. Default: `:notify`.
  - `:resolve` - `{module, function}`, called as `function(scope, name, {pid, metadata}, {pid, metadata})` with the older and the
    younger registration; it answers the pid that keeps the name, or `nil` for neither. It is called once, on the node of the
    older one, in a process of its own; if it fails or takes five seconds, the older one keeps the name. All nodes should give
    the same. Default: the older one.

      iex> Tiebeam.Registry.register(MyApp.Cluster, {:room, 7}, self(), nil, scope: :chat, on_conflict: :exit)
      :ok
      iex> {:error, {:taken, pid}} = Tiebeam.Registry.register(MyApp.Cluster, {:room, 7}, spawn(fn -> :ok end), nil, scope: :chat)
      iex> pid == self()
      true
      iex> Tiebeam.Registry.register(MyApp.Cluster, 1.5, self())
      {:error, {:invalid_name, "a name is made of atoms, UTF-8 binaries, integers, and tuples and lists of these, got: 1.5"}}
  """
  @spec register(Tiebeam.name(), name, pid, metadata, keyword) :: :ok | {:error, error}
  def register(cluster, name, pid, metadata \\ nil, options \\ []) when is_pid(pid) do
    options = options!(options, [:scope, :on_conflict, :resolve])

    with :ok <- local(pid) do
      if options[:scope] == :strong do
        Strong.register(cluster, name, pid, metadata, @strong_timeout)
      else
        with {:ok, request} <-
               request(:register, options[:scope] || :default, name, pid, metadata, options),
             :ask <- Claim.take(cluster, request),
             do: call(cluster, request)
      end
    end
  end

  @doc """
  As `register/5`, but does not wait: the answer is sent to the caller as `{reference, answer}`.

  There is none if the cluster's server ends before.

      iex> reference = Tiebeam.Registry.register_async(MyApp.Cluster, "later", self())
      iex> receive do
      ...>   {^reference, answer} -> answer
      ...> end
      :ok
  """
  @spec register_async(Tiebeam.name(), name, pid, metadata, keyword) :: reference
  def register_async(cluster, name, pid, metadata \\ nil, options \\ []) when is_pid(pid) do
    options = options!(options, [:scope, :on_conflict, :resolve])
    process = Table.process(cluster)

    if options[:scope] == :strong and local(pid) == :ok,
      do: Strong.register_async(cluster, name, pid, metadata, @strong_timeout),
      else: register_async(process, name, pid, metadata, options, make_ref())
  end

  defp register_async(process, name, pid, metadata, options, reference) do
    with :ok <- local(pid),
         {:ok, request} <- request(:register, options[:scope] || :default, name, pid, metadata, options) do
      Kernel.send(process, {:"$gen_call", {self(), reference}, request})
    else
      error -> Kernel.send(self(), {reference, error})
    end

    reference
  end

  @doc """
  As `register/5`, but waits for as long as another process has the name, at most `:timeout` milliseconds (default 5,000): then
  the answer is the last one. It tries again when that process ends, and now and then; with `:retry`, a `Tiebeam.Retry`, in place of
  `:timeout`, when that process ends and after the pauses of the policy, for as many attempts as it has.

      iex> other = spawn(fn -> receive do: (:stop -> :ok) end)
      iex> :ok = Tiebeam.Registry.register(MyApp.Cluster, "handed over", other)
      iex> send(other, :stop)
      iex> Tiebeam.Registry.register_with_retry(MyApp.Cluster, "handed over", self())
      :ok
      iex> policy = Tiebeam.Retry.new(attempts: 3, delay: 10)
      iex> Tiebeam.Registry.register_with_retry(MyApp.Cluster, "handed over", spawn(fn -> Process.sleep(:infinity) end), nil, retry: policy)
      {:error, {:taken, self()}}
  """
  @spec register_with_retry(Tiebeam.name(), name, pid, metadata, keyword) :: :ok | {:error, error}
  def register_with_retry(cluster, name, pid, metadata \\ nil, options \\ []) do
    {policy, options} = Keyword.pop(options, :retry)
    {timeout, options} = Keyword.pop(options, :timeout, 5_000)
    register = fn -> register(cluster, name, pid, metadata, options) end

    if policy,
      do: retry(register, Retry.pauses(policy)),
      else: retry(register, now() + timeout, @retry_first)
  end

  defp retry(register, pauses) do
    case {register.(), pauses} do
      {{:error, {:taken, holder}}, [pause | pauses]} ->
        await_end(holder, pause)
        retry(register, pauses)

      {answer, _pauses} ->
        answer
    end
  end

  defp retry(register, deadline, pause) do
    left = deadline - now()

    case register.() do
      {:error, {:taken, holder}} when left > 0 and is_pid(holder) ->
        # Those who wait for one name must not all come at once.
        await_end(holder, min(left, pause + :rand.uniform(pause)))
        # What ended for certain is known here in a moment.
        retry(register, deadline, min(2 * pause, @retry_max))

      answer ->
        answer
    end
  end

  # Until the process ends, but not longer than the pause.
  defp await_end(holder, pause) do
    monitor = Process.monitor(holder)

    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
    after
      pause -> Process.demonitor(monitor, [:flush])
    end
  end

  @doc """
  Takes a name away from its process, which must be one of this node; with `:pid`, only from that one. Another option is `:scope`.

  This node's table shows it when it is answered. Blocks as `register/5`.

      iex> Tiebeam.Registry.register(MyApp.Cluster, "short", self())
      iex> Tiebeam.Registry.unregister(MyApp.Cluster, "short")
      :ok
      iex> Tiebeam.Registry.unregister(MyApp.Cluster, "short")
      {:error, :unknown}
  """
  @spec unregister(Tiebeam.name(), name, keyword) :: :ok | {:error, error}
  def unregister(cluster, name, options \\ []) do
    options = options!(options, [:scope, :pid])

    if options[:scope] == :strong,
      do: Strong.unregister(cluster, name, options[:pid], @strong_timeout),
      else: unregister_eventual(cluster, name, options)
  end

  defp unregister_eventual(cluster, name, options) do
    with {:ok, request} <- request(:unregister, options[:scope] || :default, name, options[:pid]),
         do: call(cluster, request)
  end

  @doc """
  Whether a term can be a name, and why not.

      iex> Tiebeam.Registry.validate_name({:room, 7})
      :ok
      iex> {:error, {:invalid_name, _why}} = Tiebeam.Registry.validate_name(%{room: 7})
  """
  @spec validate_name(term) :: :ok | {:error, Name.invalid()}
  def validate_name(name) do
    with {:ok, _bytes} <- Name.encode(name), do: :ok
  end

  @doc """
  Replaces the metadata of a name whose process is one of this node. The option is `:scope`.

  This node's table shows it when it is answered; there is no moment without the name. Blocks as `register/5`.

      iex> Tiebeam.Registry.register(MyApp.Cluster, "cache", self(), %{zone: 1})
      iex> Tiebeam.Registry.update_meta(MyApp.Cluster, "cache", %{zone: 2})
      :ok
      iex> {_pid, %{zone: 2}} = Tiebeam.Registry.lookup(MyApp.Cluster, "cache")
  """
  @spec update_meta(Tiebeam.name(), name, metadata, keyword) :: :ok | {:error, error}
  def update_meta(cluster, name, metadata, options \\ []) do
    options = options!(options, [:scope])
    scope = options[:scope] || :default

    if scope == :strong,
      do: Strong.update_meta(cluster, name, metadata, @strong_timeout),
      else: update_eventual(cluster, scope, name, metadata)
  end

  defp update_eventual(cluster, scope, name, metadata) do
    with :ok <- Name.check_scope(scope),
         {:ok, bytes} <- Name.encode(name),
         {:ok, meta} <- Name.encode_meta(metadata),
         do: call(cluster, {:registry, {:update, scope, bytes, meta}, nil, nil, {{scope, name}}})
  end

  @doc """
  The process that has a name, or `nil`, as far as this node knows: what other nodes did a round trip ago may be missing. A
  process of this node that has ended is never the answer. Reads a table and never waits. Options: `:scope`, and `:hide_suspect`: whether a
  process whose node is a suspect is `nil` (default: `false`).

      iex> Tiebeam.Registry.whereis(MyApp.Cluster, "nobody")
      nil
  """
  @spec whereis(Tiebeam.name(), name, keyword) :: pid | nil
  def whereis(cluster, name, options \\ [])

  def whereis(cluster, name, []), do: find(cluster, :default, name)

  def whereis(cluster, name, options) do
    options = options!(options, [:scope, :hide_suspect])

    with pid when is_pid(pid) <- find(cluster, options[:scope] || :default, name),
         do: unless(hidden?(cluster, pid, options), do: pid)
  end

  defp find(_cluster, :global, name), do: with(:undefined <- :global.whereis_name(name), do: nil)

  defp find(cluster, :strong, name) do
    with {pid, _meta, _token} <- Strong.row(cluster, name), do: pid
  end

  defp find(cluster, scope, name) do
    case :ets.lookup(cluster, {scope, name}) do
      [{_key, pid, _meta, _owner}] when node(pid) != node() -> pid
      # It may have ended a moment ago, and the server not have heard of it.
      [{_key, pid, _meta, _owner}] -> if Process.alive?(pid), do: pid
      [] -> nil
    end
  rescue
    ArgumentError -> Table.no_cluster!(cluster, __STACKTRACE__)
  end

  @doc """
  The process that has a name and its metadata, or `nil`; as `whereis/3`.

      iex> Tiebeam.Registry.register(MyApp.Cluster, :logger, self(), level: :info)
      iex> Tiebeam.Registry.lookup(MyApp.Cluster, :logger) == {self(), [level: :info]}
      true
  """
  @spec lookup(Tiebeam.name(), name, keyword) :: {pid, metadata} | nil
  def lookup(cluster, name, options \\ [])

  def lookup(cluster, name, []), do: row(cluster, :default, name)

  def lookup(cluster, name, options) do
    options = options!(options, [:scope, :hide_suspect])

    found =
      case options[:scope] || :default do
        :global -> with pid when is_pid(pid) <- find(cluster, :global, name), do: {pid, nil}
        :strong -> with {pid, meta, _token} <- Strong.row(cluster, name), do: {pid, meta}
        scope -> row(cluster, scope, name)
      end

    with {pid, _meta} <- found, do: unless(hidden?(cluster, pid, options), do: found)
  end

  defp hidden?(cluster, pid, options),
    do: options[:hide_suspect] == true and Table.suspect?(cluster, node(pid))

  @doc """
  Whether somebody has a name; options as for `whereis/3`.

      iex> Tiebeam.Registry.registered?(MyApp.Cluster, "nobody")
      false
  """
  @spec registered?(Tiebeam.name(), name, keyword) :: boolean
  def registered?(cluster, name, options \\ []), do: whereis(cluster, name, options) != nil

  defp row(cluster, scope, name) do
    case :ets.lookup(cluster, {scope, name}) do
      [{_key, pid, meta, _owner}] ->
        if node(pid) != node() or Process.alive?(pid), do: {pid, meta}

      [] ->
        nil
    end
  rescue
    ArgumentError -> Table.no_cluster!(cluster, __STACKTRACE__)
  end

  @doc """
  The token of a name of the scope `:strong`, or `nil`: a number that grows with each registration. As far as this node knows; reads a table and
  never waits.
  """
  @spec token(Tiebeam.name(), name) :: pos_integer | nil
  def token(cluster, name) do
    with {_pid, _meta, token} <- Strong.row(cluster, name), do: token
  end

  @doc """
  Waits until somebody has a name. Options: `:timeout` in milliseconds or `:infinity` (default 5,000), and `:scope`.

  The caller is answered when this node's table shows the name.

      iex> Task.start(fn -> Tiebeam.Registry.register(MyApp.Cluster, "soon", Process.whereis(:init)) end)
      iex> {:ok, pid, nil} = Tiebeam.Registry.await(MyApp.Cluster, "soon")
      iex> pid == Process.whereis(:init)
      true
      iex> Tiebeam.Registry.await(MyApp.Cluster, "never", timeout: 10)
      {:error, :timeout}
  """
  @spec await(Tiebeam.name(), name, keyword) ::
          {:ok, pid, metadata} | {:error, :timeout | {:too_many_waiters, limit :: pos_integer} | error}
  def await(cluster, name, options \\ []) do
    options = options!(options, [:scope, :timeout])
    scope = options[:scope] || :default
    timeout = Keyword.get(options, :timeout, 5_000)

    unless timeout == :infinity or (is_integer(timeout) and timeout in 0..0xFFFFFFFF) do
      raise ArgumentError, "expected :timeout to be milliseconds or :infinity, got: #{inspect(timeout)}"
    end

    with :ok <- if(scope == :strong, do: :ok, else: Name.check_scope(scope)),
         {:ok, _bytes} <- Name.encode(name) do
      GenServer.call(Table.process(cluster), {:await, {scope, name}, timeout}, :infinity)
    end
  end

  @doc """
  How many names of a scope this node knows, of all nodes. The option is `:scope`. Takes the same time however many there are; while this node registers it waits for the cluster's server, as
  `register/5` does at most.

      iex> Tiebeam.Registry.count(MyApp.Cluster, scope: :empty)
      0
  """
  @spec count(Tiebeam.name(), keyword) :: non_neg_integer
  def count(cluster, options \\ []) do
    case scope!(options) do
      :global -> length(:global.registered_names())
      :strong -> length(Strong.names(cluster))
      scope -> read(cluster, fn -> settled(cluster, scope) end)
    end
  end

  defp settled(cluster, scope) do
    Claim.settle(cluster)
    cluster |> :ets.lookup({scope}) |> counted()
  end

  defp counted([{_scope, count}]), do: count
  defp counted([]), do: 0

  @doc """
  The names of a scope that this node knows, of all nodes, in no order. Reads the whole table. Options: `:scope`, and `:tag`: only names whose
  metadata is a map that has the tag in the list of its key `:tags`.

      iex> Tiebeam.Registry.register(MyApp.Cluster, "one", self(), %{tags: ["odd"]}, scope: :few)
      iex> Tiebeam.Registry.register(MyApp.Cluster, "two", self(), nil, scope: :few)
      iex> Enum.sort(Tiebeam.Registry.names(MyApp.Cluster, scope: :few))
      ["one", "two"]
      iex> Tiebeam.Registry.names(MyApp.Cluster, scope: :few, tag: "odd")
      ["one"]
  """
  @spec names(Tiebeam.name(), keyword) :: [name]
  def names(cluster, options \\ []) do
    options = options!(options, [:scope, :tag])

    case {options[:scope] || :default, Keyword.fetch(options, :tag)} do
      {:global, :error} ->
        :global.registered_names()

      {scope, {:ok, tag}} ->
        tagged = [{{:"$1", :_, %{tags: :"$2"}}, [], [{{:"$1", :"$2"}}]}]
        for {name, tags} <- select(cluster, tagged, scope: scope), tag?(tags, tag), do: name

      {scope, :error} ->
        select(cluster, [{{:"$1", :_, :_}, [], [:"$1"]}], scope: scope)
    end
  end

  @doc """
  The names of a process, in no order; a process has as many as it likes. The option is `:scope`. Reads the whole table.

      iex> for name <- ["one", "two"], do: Tiebeam.Registry.register(MyApp.Cluster, name, self(), nil, scope: :many)
      iex> Enum.sort(Tiebeam.Registry.names_of(MyApp.Cluster, self(), scope: :many))
      ["one", "two"]
  """
  @spec names_of(Tiebeam.name(), pid, keyword) :: [name]
  def names_of(cluster, pid, options \\ []) when is_pid(pid) do
    select(cluster, [{{:"$1", pid, :_}, [], [:"$1"]}], scope: scope!(options))
  end

  @doc """
  What a match specification finds among `{name, pid, metadata}` of a scope, as far as this node knows, in no order; as `Registry.select/2` of Elixir does.

  Options: `:scope`, and `:limit`: no more than so many results (default: `:infinity`). Reads the whole table, unless there are as many before its end; the
  specification is run inside the table, so that what does not match is not copied. A process that has just ended may be among the results. A
  specification that is none raises.

      iex> for zone <- 1..3, do: Tiebeam.Registry.register(MyApp.Cluster, {:cache, zone}, self(), %{zone: zone}, scope: :caches)
      iex> in_zones = [{{:"$1", :_, %{zone: :"$2"}}, [{:>=, :"$2", 2}], [:"$1"]}]
      iex> Enum.sort(Tiebeam.Registry.select(MyApp.Cluster, in_zones, scope: :caches))
      [cache: 2, cache: 3]
      iex> length(Tiebeam.Registry.select(MyApp.Cluster, [{{:_, :_, :_}, [], [:"$_"]}], scope: :caches, limit: 1))
      1
  """
  @spec select(Tiebeam.name(), spec :: [{{term, term, term}, guards :: [term], body :: [term]}], keyword) ::
          [term]
  def select(cluster, spec, options \\ []) do
    options = options!(options, [:scope, :limit])
    compiled = compile!(spec)
    limit = options[:limit] || :infinity

    case options[:scope] || :default do
      scope when scope in [:global, :strong] ->
        results = cluster |> all(scope) |> :ets.match_spec_run(compiled)
        if limit == :infinity, do: results, else: Enum.take(results, limit)

      scope ->
        rows = Enum.map(spec, &of_rows(&1, scope))
        read(cluster, fn -> select_rows(cluster, rows, limit) end)
    end
  end

  defp compile!(spec) do
    unless is_list(spec) and
             Enum.all?(spec, &match?({{_name, _pid, _meta}, guards, _body} when is_list(guards), &1)),
           do: raise(ArgumentError)

    :ets.match_spec_compile(spec)
  rescue
    ArgumentError ->
      reraise ArgumentError,
              "expected a match specification of {name, pid, metadata}, as in [{{:\"$1\", :_, :_}, [], [:\"$1\"]}], got: " <>
                inspect(spec),
              __STACKTRACE__
  end

  defp all(_cluster, :global) do
    for name <- :global.registered_names(),
        pid <- [:global.whereis_name(name)],
        is_pid(pid),
        do: {name, pid, nil}
  end

  defp all(cluster, :strong), do: Strong.names(cluster)

  # The same specification, of rows of the table.
  defp of_rows({{name, pid, meta}, guards, body}, scope),
    do: {{{scope, name}, pid, meta, :_}, whole(guards), whole(body)}

  # The whole of what matched is the triple, not the row.
  @whole {{{:element, 2, {:element, 1, :"$_"}}, {:element, 2, :"$_"}, {:element, 3, :"$_"}}}

  defp whole(:"$_"), do: @whole
  defp whole({:const, _term} = constant), do: constant
  defp whole(term) when is_tuple(term), do: term |> Tuple.to_list() |> whole() |> List.to_tuple()
  defp whole([first | rest]), do: [whole(first) | whole(rest)]
  defp whole(%{} = map), do: Map.new(map, fn {key, value} -> {whole(key), whole(value)} end)
  defp whole(term), do: term

  defp select_rows(cluster, rows, :infinity), do: :ets.select(cluster, rows)
  defp select_rows(_cluster, _rows, 0), do: []
  defp select_rows(cluster, rows, limit), do: cluster |> :ets.select(rows, limit) |> more(limit, [])

  # A table may answer with fewer than it was asked for, and still have more.
  defp more({found, continuation}, left, results) when length(found) < left,
    do: continuation |> :ets.select() |> more(left - length(found), found ++ results)

  defp more({found, _continuation}, left, results), do: Enum.take(found, left) ++ results
  defp more(:"$end_of_table", _left, results), do: results

  @doc false
  # Whether a tag is in a list; what others registered may be none, or improper.
  def tag?([tag | _tags], tag), do: true
  def tag?([_other | tags], tag), do: tag?(tags, tag)
  def tag?(_tags, _tag), do: false

  @doc """
  As `names/2`, but only those that this node answers for.
  """
  @spec local_names(Tiebeam.name(), keyword) :: [name]
  def local_names(cluster, options \\ []) do
    case scope!(options) do
      :strong ->
        for {name, pid, _meta} <- Strong.names(cluster), node(pid) == node(), do: name

      scope ->
        rows = for owner <- [node(), {:claim, :_}], do: {{{scope, :"$1"}, :_, :_, owner}, [], [:"$1"]}
        read(cluster, fn -> :ets.select(cluster, rows) end)
    end
  end

  @doc """
  Sends the calling process the [events](#module-events) of names and groups from now on, until it ends.

      iex> Tiebeam.Registry.subscribe(MyApp.Cluster)
      :ok
      iex> Tiebeam.Registry.register(MyApp.Cluster, "seen", self())
      iex> me = self()
      iex> receive do: ({:tiebeam, MyApp.Cluster, {:registered, :default, "seen", ^me, nil}} -> :seen)
      :seen
  """
  @spec subscribe(Tiebeam.name()) :: :ok
  def subscribe(cluster), do: GenServer.call(Table.process(cluster), :subscribe_names)

  @doc "Ends the subscription of the calling process."
  @spec unsubscribe(Tiebeam.name()) :: :ok
  def unsubscribe(cluster), do: GenServer.call(Table.process(cluster), :unsubscribe_names)

  @doc false
  defmacro __using__(options) do
    quote bind_quoted: [options: options] do
      {cluster, options} = Keyword.pop(options, :cluster)
      Tiebeam.Registry.own!(cluster, options)

      @tiebeam_cluster cluster
      @tiebeam_options Keyword.put_new(options, :scope, :default)

      @doc "Gives a name to a process of this node: see `Tiebeam.Registry.register/5`."
      @spec register_name(Tiebeam.Registry.name(), pid) ::
              :ok | {:error, :already_registered | Tiebeam.Registry.error()}
      def register_name(name, pid),
        do: Tiebeam.Registry.register_own(@tiebeam_cluster, name, pid, @tiebeam_options)

      @doc "Takes a name away from its process, which must be one of this node: see `Tiebeam.Registry.unregister/3`."
      @spec unregister_name(Tiebeam.Registry.name()) :: :ok | {:error, :not_found | Tiebeam.Registry.error()}
      def unregister_name(name),
        do: Tiebeam.Registry.unregister_own(@tiebeam_cluster, name, @tiebeam_options[:scope])

      @doc "The process that has a name: see `Tiebeam.Registry.whereis/3`."
      @spec lookup_name(Tiebeam.Registry.name()) :: {:ok, pid} | {:error, :not_found}
      def lookup_name(name) do
        case Tiebeam.Registry.whereis(@tiebeam_cluster, name, scope: @tiebeam_options[:scope]) do
          nil -> {:error, :not_found}
          pid -> {:ok, pid}
        end
      end

      @doc "A name as OTP takes it, for what registers itself when it starts."
      @spec via(Tiebeam.Registry.name()) :: {:via, Tiebeam.Registry, Tiebeam.Registry.via()}
      def via(name), do: {:via, Tiebeam.Registry, {@tiebeam_cluster, @tiebeam_options[:scope], name}}

      @doc "For a place behind the cluster in a supervision tree: starts no process, and fails where there is no cluster."
      @spec child_spec(term) :: Supervisor.child_spec()
      def child_spec(_argument),
        do: %{id: __MODULE__, start: {Tiebeam.Registry, :start_own, [@tiebeam_cluster]}}

      defoverridable register_name: 2, unregister_name: 1, lookup_name: 1, via: 1
    end
  end

  @doc false
  def own!(cluster, options) do
    unless is_atom(cluster) and cluster != nil do
      raise ArgumentError,
            "use Tiebeam.Registry needs the option :cluster, the name of a cluster, got: #{inspect(cluster)}"
    end

    options!(options, [:scope, :on_conflict, :resolve])
  end

  @doc false
  def start_own(cluster) do
    Table.process(cluster)
    :ignore
  end

  @doc false
  def register_own(cluster, name, pid, options) do
    with {:error, {:taken, _holder}} <- register(cluster, name, pid, nil, options),
         do: {:error, :already_registered}
  end

  @doc false
  def unregister_own(cluster, name, scope) do
    with {:error, :unknown} <- unregister(cluster, name, scope: scope), do: {:error, :not_found}
  end

  # OTP's callbacks for `:via`.

  @doc false
  @spec register_name(via, pid) :: :yes | :no
  def register_name(name, pid), do: register_name(via(name), pid, @max_attempts)

  defp register_name({cluster, scope, name, metadata} = via, pid, attempts) do
    case register(cluster, name, pid, metadata, scope: scope) do
      :ok ->
        :yes

      # The caller looks next who has it. One that is gone by then would be a start that failed for no reason.
      {:error, {:taken, holder}} when attempts > 1 ->
        if find(cluster, scope, name) == holder, do: :no, else: register_name(via, pid, attempts - 1)

      {:error, {:taken, _holder}} ->
        :no

      {:error, reason} ->
        raise ArgumentError, describe(reason)
    end
  end

  @doc false
  @spec unregister_name(via) :: :ok
  def unregister_name(name) do
    {cluster, scope, name, _metadata} = via(name)
    unregister(cluster, name, scope: scope)
    :ok
  end

  @doc false
  @spec whereis_name(via) :: pid | :undefined
  def whereis_name({cluster, name}), do: find(cluster, :default, name) || :undefined
  def whereis_name({cluster, scope, name}), do: find(cluster, scope, name) || :undefined
  def whereis_name({cluster, scope, name, _metadata}), do: find(cluster, scope, name) || :undefined

  @doc false
  @spec send(via, message) :: message when message: term
  def send(name, message) do
    case whereis_name(name) do
      :undefined -> exit({:badarg, {name, message}})
      pid -> Kernel.send(pid, message)
    end

    message
  end

  defp via({cluster, name}), do: {cluster, :default, name, nil}
  defp via({cluster, scope, name}), do: {cluster, scope, name, nil}
  defp via({cluster, scope, name, metadata}), do: {cluster, scope, name, metadata}

  # For the server and `Tiebeam.Group`.

  @doc false
  # What the server is asked: everything is checked and encoded by who asks. Last comes the row that the table will have, or its
  # key, if it is about a name.
  def request(command, scope, name, pid, meta \\ nil, options \\ [])

  def request(:register, scope, name, pid, meta, options) do
    on_conflict = Keyword.get(options, :on_conflict, :notify)
    resolve = Keyword.get(options, :resolve)

    with :ok <- Name.check_scope(scope),
         {:ok, bytes} <- Name.encode(name),
         {:ok, meta_bytes} <- Name.encode_meta(meta) do
      command = {:register, scope, bytes, Name.encode_pid(pid), meta_bytes, on_conflict, resolve != nil}
      choice = if on_conflict != :notify or resolve != nil, do: {scope, name, on_conflict, resolve}
      {:ok, {:registry, command, pid, choice, {{scope, name}, pid, meta, node()}}}
    end
  end

  def request(:unregister, scope, name, pid, _meta, _options) do
    with :ok <- Name.check_scope(scope),
         {:ok, bytes} <- Name.encode(name),
         do:
           {:ok,
            {:registry, {:unregister, scope, bytes, pid && Name.encode_pid(pid)}, nil, nil, {{scope, name}}}}
  end

  def request(:join, scope, group, pid, meta, _options) do
    with :ok <- Name.check_scope(scope),
         {:ok, bytes} <- Name.encode(group),
         {:ok, meta} <- Name.encode_meta(meta),
         do: {:ok, {:registry, {:join, scope, bytes, Name.encode_pid(pid), meta}, pid, nil, nil}}
  end

  def request(:leave, scope, group, pid, _meta, _options) do
    with :ok <- Name.check_scope(scope),
         {:ok, bytes} <- Name.encode(group),
         do: {:ok, {:registry, {:leave, scope, bytes, Name.encode_pid(pid)}, nil, nil, nil}}
  end

  @doc false
  def call(cluster, request), do: GenServer.call(Table.process(cluster), request)

  @doc false
  def local(pid) when node(pid) == node(), do: :ok
  def local(pid), do: {:error, {:not_local, pid, node(pid)}}

  @doc false
  def scope!([]), do: :default
  def scope!(options), do: options!(options, [:scope])[:scope] || :default

  @doc false
  def read(cluster, read) do
    read.()
  rescue
    ArgumentError -> Table.no_cluster!(cluster, __STACKTRACE__)
  end

  @doc false
  # The error in words.
  @spec describe(error | {:not_theirs, pid, node}) :: String.t()
  def describe({:invalid_name, why}), do: why
  def describe({:invalid_scope, why}), do: why
  def describe({:too_long, part, bytes, limit}), do: "the #{part} has #{bytes} bytes, the limit is #{limit}"

  def describe({:not_local, pid, node}),
    do: "#{inspect(pid)} is a process of #{node}: register it there"

  def describe({:scope_full, limit}),
    do: "this node has #{limit} entries in the scope, which is its limit (the option :entries_per_scope)"

  def describe({:scopes_full, limit}), do: "this node uses #{limit} scopes, which is its limit"
  def describe({:full, limit}), do: "this node has #{limit} entries, which is its limit"

  def describe({:not_theirs, pid, node}),
    do: "#{inspect(pid)} is a process of #{node}: only that node takes its names and memberships away"

  def describe({:noconnection, node}), do: "#{node} is not connected"

  def describe({:too_many_guests, limit}),
    do: "this node watches #{limit} processes of others, which is its limit"

  def describe(:noproc), do: "the process has ended"
  def describe(:left), do: Exception.message(%Error{reason: :left})
  def describe({:taken, pid}), do: "the name is taken by #{inspect(pid)}"
  def describe(:unknown), do: "there is no such entry, or it is not known what became of it"

  def describe({:not_founded, missing}) when is_list(missing),
    do: "the group is not founded yet: these voters are missing: #{Enum.join(missing, ", ")}"

  def describe({:not_founded, count}), do: "the group is not founded yet: #{count} more nodes are expected"

  def describe({:no_replica, limit}),
    do: "the group has #{limit} members, which is the limit, and this node is none of them"

  def describe(:no_quorum), do: "no majority of the voters could be reached in time, or there is no group yet"

  def describe(:no_group),
    do: "this node takes no part in a group: start the cluster with the option :voters or :expect"

  def describe(reason), do: "the group refused it: #{inspect(reason)}"

  @doc false
  # Look-ups come here, mostly without any.
  def options!([], _known), do: []

  def options!(options, known) do
    Tiebeam.Leadership.keyword!(options)

    for {key, value} <- options do
      cond do
        key not in known ->
          raise ArgumentError,
                "unknown option #{inspect(key)}; the options are #{Enum.map_join(known, ", ", &inspect/1)}"

        not option?(key, value) ->
          raise ArgumentError, "the option #{inspect(key)} cannot be #{inspect(value)}"

        true ->
          :ok
      end
    end

    options
  end

  defp option?(:on_conflict, value), do: value in [:exit, :notify, :standby]
  defp option?(:resolve, {module, function}), do: is_atom(module) and is_atom(function)
  defp option?(:resolve, value), do: value == nil
  defp option?(:pid, value), do: is_pid(value) or value == nil
  defp option?(:hide_suspect, value), do: is_boolean(value)
  defp option?(:limit, value), do: value in [nil, :infinity] or (is_integer(value) and value >= 0)
  defp option?(_key, _value), do: true

  defp now, do: System.monotonic_time(:millisecond)
end
