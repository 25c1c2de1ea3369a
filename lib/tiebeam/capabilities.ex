defmodule Tiebeam.Capabilities do
  @moduledoc """
  What each node of a cluster can do, and of which release it is: a gate for rolling upgrades.

      children = [
        {Tiebeam, name: MyApp.Cluster},
        {Tiebeam.Capabilities, cluster: MyApp.Cluster, version: "1.4.0", capabilities: ["orders.v2"]}
      ]

  A release that understands something new says so, and does it only once all others do as well:

      if Tiebeam.Capabilities.all?(MyApp.Cluster, "orders.v2"),
        do: Orders.V2.wrap(order),
        else: Orders.V1.wrap(order)

  A node that announces nothing can do nothing of that name: nodes of releases before this keep the gate closed. Rust nodes announce by
  `ClusterHandle::capabilities`, or `tiebeam node --capability NAME`.

      iex> {:ok, _} = Tiebeam.Capabilities.start_link(cluster: MyApp.Cluster, capabilities: ["orders.v2"])
      iex> Tiebeam.Capabilities.all?(MyApp.Cluster, "orders.v2")
      true
      iex> Tiebeam.Capabilities.missing(MyApp.Cluster, "orders.v3") == [node()]
      true

  ## What is promised

  It is a view of this node, and nothing that is agreed upon: each node reads its own table, which knows what was announced about a round trip later. On
  either side of a split the gate is opened by the members that are seen there. A node of an old release that starts later closes the gate
  again, and may have been sent something that it does not understand before: `Tiebeam.Message` refuses that with both versions.

  What was announced is metadata of the group `{:tiebeam, :capabilities}` in the default scope of `Tiebeam.Group`, and goes with the node.

  ## Options

  - `:cluster` - the name of the cluster. Required; one per cluster and node.
  - `:capabilities` - at most 32 strings of at most 64 bytes. Default: none.
  - `:version` - that of the application, a string of at most 64 bytes. Default: `nil`.
  """

  use GenServer

  alias Tiebeam.{Group, Leadership, Member, Table}

  @typedoc "What a node announced; `:tiebeam` is the version of the package, or of the crate."
  @type announced :: %{tiebeam: String.t(), version: String.t() | nil, capabilities: [String.t()]}

  @group {:tiebeam, :capabilities}
  @defaults [cluster: nil, capabilities: [], version: nil]

  # Together less than the metadata of a group's member may have.
  @max_count 32
  @max_bytes 64

  # The pause before it is announced again when the cluster's server was not there, in milliseconds.
  @pause 500

  @tiebeam Mix.Project.config()[:version]

  @doc "Starts the process that announces, linked to the caller. The options are listed [above](#module-options)."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    options = Leadership.options!(options, @defaults)

    unless is_atom(options.cluster) and options.cluster != nil,
      do:
        raise(
          ArgumentError,
          "the option :cluster is required: the name of a cluster, got: #{inspect(options.cluster)}"
        )

    check!(options.capabilities)

    unless options.version == nil or text?(options.version),
      do:
        raise(
          ArgumentError,
          "the option :version must be a string of at most #{@max_bytes} bytes, got: #{inspect(options.version)}"
        )

    GenServer.start_link(__MODULE__, options, name: process(options.cluster))
  end

  @doc "The child specification. Put it behind the cluster, and behind what must be there for the capabilities to be true."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{id: {__MODULE__, options[:cluster]}, start: {__MODULE__, :start_link, [options]}}
  end

  @doc """
  Replaces what this node announces. Blocks for the time of a call; exits like `GenServer.call/2`, also where nothing was started for that
  cluster.
  """
  @spec put(Tiebeam.name(), [String.t()]) :: :ok
  def put(cluster, capabilities) do
    check!(capabilities)
    GenServer.call(process(cluster), {:put, capabilities})
  end

  @doc """
  What a node announced; `nil` if nothing. Reads a table and never waits, as all that follow.

      iex> Tiebeam.Capabilities.of(MyApp.Cluster, :"nobody@127.0.0.1")
      nil
  """
  @spec of(Tiebeam.name(), node) :: announced | nil
  def of(cluster, node) when is_atom(node), do: cluster |> announced() |> Map.get(node)

  @doc """
  Whether all members have a capability. They are those that run Tiebeam and are alive or suspect; with the option `:among`, a list of
  nodes, these instead, whatever they are.
  """
  @spec all?(Tiebeam.name(), String.t(), keyword) :: boolean
  def all?(cluster, capability, options \\ []), do: missing(cluster, capability, options) == []

  @doc "The members that lack a capability, in order. The option is `:among`, as for `all?/3`."
  @spec missing(Tiebeam.name(), String.t(), keyword) :: [node]
  def missing(cluster, capability, options \\ []) when is_binary(capability) do
    %{among: among} = Leadership.options!(options, among: nil)
    announced = announced(cluster)

    for node <- among || members(cluster),
        capability not in Map.get(announced, node, %{capabilities: []}).capabilities,
        do: node
  end

  @doc "The nodes that have a capability, in order."
  @spec nodes(Tiebeam.name(), String.t()) :: [node]
  def nodes(cluster, capability) when is_binary(capability) do
    Enum.sort(for {node, %{capabilities: has}} <- announced(cluster), capability in has, do: node)
  end

  defp members(cluster) do
    for %Member{node: node, kind: kind, status: status} <- Tiebeam.members(cluster),
        kind != :plain and status in [:alive, :suspect],
        do: node
  end

  # A Rust node may have several announcements. Another program may have said anything.
  defp announced(cluster) do
    for {pid, %{} = said} <- Group.lookup(cluster, @group), reduce: %{} do
      nodes -> Map.update(nodes, node(pid), read(said), &together(&1, read(said)))
    end
  end

  defp read(said) do
    %{
      tiebeam: text(said[:tiebeam]) || "",
      version: text(said[:version]),
      capabilities: Enum.filter(list(said[:capabilities]), &is_binary/1)
    }
  end

  defp together(one, other) do
    capabilities = Enum.sort(Enum.uniq(one.capabilities ++ other.capabilities))
    %{one | version: one.version || other.version, capabilities: capabilities}
  end

  defp text(text), do: if(is_binary(text), do: text)

  defp list([_ | _] = list), do: if(List.improper?(list), do: [], else: list)
  defp list(_), do: []

  defp check!(capabilities) do
    unless is_list(capabilities) and length(capabilities) <= @max_count and Enum.all?(capabilities, &text?/1),
      do:
        raise(
          ArgumentError,
          "the capabilities must be at most #{@max_count} strings of at most #{@max_bytes} bytes, got: #{inspect(capabilities)}"
        )
  end

  defp text?(text), do: is_binary(text) and byte_size(text) in 1..@max_bytes and String.valid?(text)

  defp process(cluster), do: Module.concat(cluster, Capabilities)

  @impl true
  def init(%{cluster: cluster} = options) do
    # Raises where there is none.
    _process = Table.process(cluster)
    {:ok, announce(Map.merge(options, %{monitor: nil, timer: nil}))}
  end

  @impl true
  def handle_call({:put, capabilities}, _from, state),
    do: {:reply, :ok, announce(%{state | capabilities: capabilities})}

  # A server that begins anew knows nothing of it.
  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state),
    do: {:noreply, later(%{state | monitor: nil})}

  def handle_info({:timeout, timer, :announce}, %{timer: timer} = state),
    do: {:noreply, announce(%{state | timer: nil})}

  def handle_info(_message, state), do: {:noreply, state}

  defp announce(%{cluster: cluster} = state) do
    said = %{
      tiebeam: @tiebeam,
      version: state.version,
      capabilities: Enum.sort(Enum.uniq(state.capabilities))
    }

    state = watch(state)
    :ok = Group.join(cluster, @group, self(), said)
    state
  catch
    # The server is not there, or does not answer; the table is there for as long as the cluster is.
    :exit, _reason -> later(state)
  end

  defp watch(%{monitor: nil, cluster: cluster} = state),
    do: %{state | monitor: Process.monitor(Table.process(cluster))}

  defp watch(state), do: state

  defp later(%{timer: nil} = state),
    do: %{state | timer: :erlang.start_timer(@pause, self(), :announce)}

  defp later(state), do: state
end
