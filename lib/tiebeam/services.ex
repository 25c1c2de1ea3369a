defmodule Tiebeam.Services do
  @moduledoc """
  Who offers what in the cluster: processes of BEAM and Rust nodes with a name, tags and metadata.

      iex> Tiebeam.Services.register(MyApp.Cluster, "api", tags: ["http", "json"], meta: %{port: 8080})
      :ok
      iex> [service] = Tiebeam.Services.list(MyApp.Cluster, tag: "http")
      iex> {service.name, service.pid == self(), service.meta, service.status}
      {"api", true, %{port: 8080}, :alive}

  Many processes may offer one service, and a process may offer many. An entry is there while its process runs and its node is known; it
  is a member of a group, so what `Tiebeam.Group` says of consistency holds: each node knows of all services by itself, look-ups
  read a table and never wait, and what another node registered is there about a round trip later.

  ## In a supervision tree

  A child is registered when it has started and before its supervisor goes on, after each restart as well:

      children = [
        {Tiebeam, name: MyApp.Cluster},
        {Tiebeam.Services, cluster: MyApp.Cluster, name: "api", tags: ["http"], child: {MyApp.Api, port: 8080}}
      ]

  See `child_spec/1`. A process may as well call `register/3` in its `init/1`.

  ## Filters

  `list/2` and `watch/2` take a filter, options that must all hold:

  - `:name` - services of this name only.
  - `:tag` - those that have this tag; a list: all of these.
  - `:meta` - those whose metadata is a map with at least these keys and values, `%{zone: "a"}`.
  - `:status` - `:alive` (default): without those whose node is a suspect; `:suspect`: only these; `:any`: both, told apart by
    the field `:status`. A suspect is a node that did not answer lately; most come back. Services of nodes that are dead or have
    left are never there.
  - `:scope` - as in `Tiebeam.Registry`. Default: `:services`.

  With a name only the rows of this service are read, otherwise those of all services.

  ## From other nodes

  A Rust node has the same services by `ClusterHandle::services`. Any other node asks a member, as `Tiebeam.Registry` says: services are
  the groups of the scope `:services`, and the metadata of their members is `%{tags: tags, meta: meta}`.

      GenServer.call({:tiebeam, node}, {:join, :services, "api", self(), %{tags: ["http"], meta: nil}})
      GenServer.call({:tiebeam, node}, {:groups, :services})
  """

  alias Tiebeam.{Group, Leadership, Registry, Service, Table}
  alias Tiebeam.Registry.Name
  alias Tiebeam.Services.Filter

  # How long a child that could not be registered may take to end where its specification does not say, in milliseconds: as
  # a supervisor gives a worker.
  @shutdown 5_000

  @registration [pid: nil, tags: [], meta: nil, scope: :services]

  @typedoc "What a listed service must be: see [filters](#module-filters)."
  @type filter :: [
          name: Registry.name(),
          tag: Registry.name() | [Registry.name()],
          meta: map,
          status: :alive | :suspect | :any,
          scope: Registry.scope()
        ]

  @doc """
  Registers a process of this node as a service, until it ends; one that is registered gets the new tags and metadata.

  Options:

  - `:tags` - what it can do, a list of names as in `Tiebeam.Registry`. Default: none.
  - `:meta` - any term. Together with the tags at most 4,096 bytes. Default: `nil`.
  - `:pid` - the process. Default: the caller.
  - `:scope` - as for [filters](#module-filters).

  Blocks as `Tiebeam.Group.join/5`.

      iex> Tiebeam.Services.register(MyApp.Cluster, "db", meta: %{port: 5432})
      :ok
      iex> Tiebeam.Services.register(MyApp.Cluster, 1.5)
      {:error, {:invalid_name, "a name is made of atoms, UTF-8 binaries, integers, and tuples and lists of these, got: 1.5"}}
  """
  @spec register(Tiebeam.name(), Registry.name(), keyword) :: :ok | {:error, Registry.error()}
  def register(cluster, name, options \\ []) do
    %{pid: pid, tags: tags, meta: meta, scope: scope} = registration!(options)
    Group.join(cluster, name, pid || self(), %{tags: tags, meta: meta}, scope: scope)
  end

  @doc """
  Takes a process of this node out of a service. Options: `:pid` (default: the caller) and `:scope`. Blocks as `register/3`.

      iex> Tiebeam.Services.unregister(MyApp.Cluster, "never")
      {:error, :unknown}
  """
  @spec unregister(Tiebeam.name(), Registry.name(), keyword) :: :ok | {:error, Registry.error()}
  def unregister(cluster, name, options \\ []) do
    %{pid: pid, scope: scope} = Leadership.options!(options, Keyword.take(@registration, [:pid, :scope]))
    Group.leave(cluster, name, pid || self(), scope: scope)
  end

  @doc """
  The services that pass a [filter](#module-filters), on all nodes, in no order. Reads tables of this node and never waits.

      iex> Tiebeam.Services.register(MyApp.Cluster, "cache", meta: %{zone: "a"})
      iex> for service <- Tiebeam.Services.list(MyApp.Cluster, name: "cache", meta: %{zone: "a"}), do: service.pid == self()
      [true]
      iex> Tiebeam.Services.list(MyApp.Cluster, status: :suspect)
      []
  """
  @spec list(Tiebeam.name(), filter) :: [Service.t()]
  def list(cluster, filter \\ []) do
    filter = Filter.new!(filter)
    rows = Group.rows(cluster, filter.scope, filter.name)

    for row <- rows, service = Service.of_row(cluster, row), Filter.passes?(filter, service), do: service
  end

  @doc """
  Answers the services that pass a [filter](#module-filters), and sends the caller every change from then on, until it ends:

      {:tiebeam, cluster, {:service, watch, :up, service}}
      {:tiebeam, cluster, {:service, watch, :changed, service}}
      {:tiebeam, cluster, {:service, watch, :down, service}}

  `:up` is a service that passes now, `:changed` one that has other tags, metadata or status and still passes, `:down` one that passed
  and does not any more, as it was last: its process or node is gone, it was unregistered, its node is suspected and the filter
  wants those alive. Nothing is missed in between, and what is told is in the table; a crash of the cluster's server is
  told as the differences that it made. At most 4,096 watches of a node: then `{:error, {:busy, limit}}`.

      iex> {:ok, watch, []} = Tiebeam.Services.watch(MyApp.Cluster, tag: "mail")
      iex> Tiebeam.Services.register(MyApp.Cluster, "smtp", tags: ["mail"])
      iex> receive do: ({:tiebeam, MyApp.Cluster, {:service, ^watch, :up, service}} -> service.name)
      "smtp"
      iex> Tiebeam.Services.unregister(MyApp.Cluster, "smtp")
      iex> receive do: ({:tiebeam, MyApp.Cluster, {:service, ^watch, :down, service}} -> service.name)
      "smtp"
      iex> Tiebeam.Services.unwatch(MyApp.Cluster, watch)
      :ok
  """
  @spec watch(Tiebeam.name(), filter) ::
          {:ok, watch :: reference, [Service.t()]} | {:error, {:busy, limit :: pos_integer}}
  def watch(cluster, filter \\ []),
    do: GenServer.call(Table.process(cluster), {:watch_services, Filter.new!(filter)})

  @doc "Ends a watch of the calling process. What was sent before may still be in its mailbox."
  @spec unwatch(Tiebeam.name(), watch :: reference) :: :ok
  def unwatch(cluster, watch) when is_reference(watch),
    do: GenServer.call(Table.process(cluster), {:unwatch_services, watch})

  @doc """
  A child that is a service: its own specification, with another start. It runs directly below the supervisor, under its own id; the supervisor
  goes on when it is registered, and a restarted one is registered again. If it cannot be registered it is stopped, and its start fails with
  `{:not_registered, reason}`.

  Options: `:cluster`, `:name` and `:child` (a child specification, `{module, argument}` or a module), which are required, and those of
  `register/3` but for `:pid`.

      iex> child = {Tiebeam.Services, cluster: MyApp.Cluster, name: "counter", tags: ["sum"], child: {Agent, fn -> 0 end}}
      iex> {:ok, supervisor} = Supervisor.start_link([child], strategy: :one_for_one)
      iex> [{Agent, pid, :worker, [Agent]}] = Supervisor.which_children(supervisor)
      iex> for service <- Tiebeam.Services.list(MyApp.Cluster, tag: "sum"), do: service.pid == pid
      [true]
      iex> Supervisor.stop(supervisor)
      :ok
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    {given, registration} = options |> Leadership.keyword!() |> Keyword.split([:cluster, :name, :child])

    for key <- [:cluster, :name, :child], not Keyword.has_key?(given, key) do
      raise ArgumentError, "the option #{inspect(key)} is required"
    end

    if Keyword.has_key?(registration, :pid), do: raise(ArgumentError, "the option :pid is the child's")
    registration!(registration)
    %{start: {module, _, _} = start} = spec = Supervisor.child_spec(given[:child], [])
    arguments = [start, shutdown(spec), given[:cluster], given[:name], registration]

    spec
    |> Map.put_new(:modules, [module])
    |> Map.put(:start, {__MODULE__, :start_child, arguments})
  end

  defp shutdown(%{shutdown: shutdown}), do: shutdown
  defp shutdown(%{type: :supervisor}), do: :infinity
  defp shutdown(_spec), do: @shutdown

  @doc false
  # In the supervisor, whose child it becomes.
  def start_child({module, function, arguments}, shutdown, cluster, name, registration) do
    case apply(module, function, arguments) do
      {:ok, pid} -> registered({:ok, pid}, pid, shutdown, cluster, name, registration)
      {:ok, pid, info} -> registered({:ok, pid, info}, pid, shutdown, cluster, name, registration)
      other -> other
    end
  end

  defp registered(started, pid, shutdown, cluster, name, registration) do
    case register(cluster, name, [pid: pid] ++ registration) do
      :ok ->
        started

      {:error, reason} ->
        stop(pid, shutdown)
        {:error, {:not_registered, reason}}
    end
  catch
    # There is no such cluster, or its server ended meanwhile.
    kind, reason ->
      stop(pid, shutdown)
      {:error, {:not_registered, {kind, reason}}}
  end

  # As its supervisor would. It does not know of the child yet.
  defp stop(pid, shutdown) do
    monitor = Process.monitor(pid)
    Process.unlink(pid)
    Process.exit(pid, if(shutdown == :brutal_kill, do: :kill, else: :shutdown))

    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
    after
      if(shutdown == :brutal_kill, do: :infinity, else: shutdown) ->
        Process.exit(pid, :kill)
        receive do: ({:DOWN, ^monitor, :process, _pid, _reason} -> :ok)
    end
  end

  defp registration!(options) do
    options = Leadership.options!(options, @registration)

    unless options.pid == nil or is_pid(options.pid) do
      raise ArgumentError, "the option :pid cannot be #{inspect(options.pid)}"
    end

    unless is_list(options.tags) and List.improper?(options.tags) == false and
             Enum.all?(options.tags, &match?({:ok, _bytes}, Name.encode(&1))) do
      raise ArgumentError, "the option :tags must be a list of names, got: #{inspect(options.tags)}"
    end

    options
  end
end
