defmodule Tiebeam.Singleton do
  @moduledoc """
  A child that runs on one node of the cluster at a time, with the others standing by.

      children = [
        {Tiebeam, name: MyApp.Cluster, voters: [:"a@h1", :"b@h2", :"c@h3"]},
        {Tiebeam.Singleton, cluster: MyApp.Cluster, name: "db", child: {MyApp.Db, []}}
      ]

  Put it on each node that may run the child. One of them holds the claim `name` and is *active*; the others are *passive* and
  take over when the claim is given back, or when the active node is gone for as long as the option `:session_ttl` of the
  cluster. A Rust node that claims the same singleton is a standby as any other.

  ## What is promised

  Of two nodes whose clocks run alike at most one is active. A node becomes active only when it was granted the claim, and it
  knows that the claim is lost before anybody else can have it: then the child, and what is linked to it, is *killed*.
  Everything orderly (a stop of the supervisor, `step_down/2`, a child that ended) stops the child first, as its `:shutdown`
  says, and gives the claim back afterwards. The token grows with each grant; what the child acts upon should refuse those
  that are less than the greatest it has seen, because a message may outlive its sender.

  Taking over needs a majority of the voters; an active node that loses contact with it stops.

  ## Options

  - `:cluster`, `:name` - a name as in `Tiebeam.Registry`. Required.
  - `:child` - a child specification, `{module, argument}`, a module, or a function that makes one of these from the token.
    Its `:restart` has no meaning here: when the child ends, for whatever reason, the node steps down, so that another one may
    try. Default: none, for those that only use the functions below.
  - `:on_active` - a function of the token, called before the child is started. If it fails the node steps down.
  - `:on_passive` - a function of the reason, called after the child is stopped: `:lost` (it was killed), `:step_down`,
    `:shutdown`, or `{:exit, reason}` of the child. Except for `:lost` the claim is given back afterwards.
  - `:cooldown` - for how many milliseconds a node that stepped down leaves it to the others. Default: 5,000.
  - `:metadata` - what others see of this node. Default: `nil`.

  Without an active node, in a cluster of one:

      iex> me = self()
      iex> {:ok, singleton} =
      ...>   Tiebeam.Singleton.start_link(cluster: MyApp.Cluster, name: "db", on_active: &send(me, {:active, &1}))
      iex> token = receive do: ({:active, token} -> token)
      iex> Tiebeam.Singleton.status(singleton)
      {:active, token}
      iex> GenServer.stop(singleton)
      :ok
  """

  use GenServer

  require Logger

  alias Tiebeam.{Leader, Leadership, Registry, Table}
  alias Tiebeam.Registry.Name

  # How long one question for the claim waits; it is asked again and again.
  @wait 60_000

  # The pause before it is asked again when there was no majority, or no server.
  @pause 1_000

  # How long an orderly end waits for the claim to be given back; the end of the process gives it back as well.
  @release 2_000

  @defaults [
    cluster: nil,
    name: nil,
    child: nil,
    on_active: nil,
    on_passive: nil,
    cooldown: 5_000,
    metadata: nil
  ]

  # `runner` is the process that starts the child and stops it; `part` is `:standing`, `:cooling`, `:active` or `{:stopping,
  # reason}`. `asked` is the question for the claim, `monitor` that of the cluster's server.
  @enforce_keys [:options, :name]
  defstruct @enforce_keys ++ [:asked, :monitor, :token, :runner, :timer, part: :cooling, waiting: []]

  @doc "Starts a singleton's process, linked to the caller. The options are listed [above](#module-options)."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    options = Leadership.options!(options, @defaults)

    unless is_atom(options.cluster) and options.cluster != nil do
      raise ArgumentError,
            "the option :cluster is required: the name of a cluster, got: #{inspect(options.cluster)}"
    end

    unless is_integer(options.cooldown) and options.cooldown in 0..86_400_000 do
      raise ArgumentError, "the option :cooldown must be milliseconds, got: #{inspect(options.cooldown)}"
    end

    case options.name != nil and Name.encode(options.name) do
      {:ok, bytes} -> GenServer.start_link(__MODULE__, {options, bytes})
      {:error, reason} -> raise ArgumentError, Registry.describe(reason)
      false -> raise ArgumentError, "the option :name is required"
    end
  end

  @doc "The child specification. Its shutdown takes as long as that of the child."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: {__MODULE__, options[:cluster], options[:name]},
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor
    }
  end

  @doc """
  Which node is active, and its token; `nil` if none is. As far as this node knows: reads a table and never waits.
  """
  @spec whereis(Tiebeam.name(), Registry.name()) :: {node, Leader.token()} | nil
  def whereis(cluster, name) do
    case :ets.lookup(Table.agreed_of(cluster), {:singleton, name}) do
      [{_key, token, pid, _meta}] when is_pid(pid) -> {node(pid), token}
      _ -> nil
    end
  end

  @doc "What a singleton's process of this node does now. Blocks for the time of a call."
  @spec status(GenServer.server()) :: {:active, Leader.token()} | :passive
  def status(singleton), do: GenServer.call(singleton, :status)

  @doc """
  Makes the active node passive, in good order, wherever it is: its child is stopped, then another node may take over. It
  stands by again after its `:cooldown`. Answers when the claim was given back; blocks for as long as the child takes to stop,
  at most `timeout` milliseconds, then exits like `GenServer.call/3`.

  `{:error, :passive}`: no node is active, as far as this one knows.
  """
  @spec step_down(Tiebeam.name(), Registry.name(), timeout) :: :ok | {:error, :passive}
  def step_down(cluster, name, timeout \\ 30_000) do
    case :ets.lookup(Table.agreed_of(cluster), {:singleton, name}) do
      [{_key, token, pid, _meta}] when is_pid(pid) -> GenServer.call(pid, {:step_down, token}, timeout)
      _ -> {:error, :passive}
    end
  end

  @impl true
  def init({options, name}) do
    # It must have its turn before what it guards against, and sees how its child ends.
    Process.flag(:priority, :high)
    Process.flag(:trap_exit, true)
    {:ok, stand(%__MODULE__{options: options, name: name})}
  end

  @impl true
  def handle_call(:status, _from, %{part: :active} = state), do: {:reply, {:active, state.token}, state}
  def handle_call(:status, _from, state), do: {:reply, :passive, state}

  def handle_call({:step_down, token}, from, %{part: part, token: token} = state) when part != :cooling do
    state = %{state | waiting: [from | state.waiting]}
    {:noreply, if(part == :active, do: stop_child(state, :step_down), else: state)}
  end

  def handle_call({:step_down, _token}, _from, state), do: {:reply, {:error, :passive}, state}

  @impl true
  # The answer to the question for the claim.
  def handle_info({asked, answer}, %{asked: asked} = state) when is_reference(asked) do
    state = %{state | asked: nil}

    case answer do
      {:done, token} ->
        {:noreply, activate(state, token)}

      {:held, _value, _token} ->
        {:noreply, stand(state)}

      {:error, :no_group} ->
        {:stop, {:no_group, "start the cluster on this node with voters: or expect:"}, state}

      _no_majority ->
        {:noreply, cool(state, @pause)}
    end
  end

  def handle_info({:timeout, timer, :stand}, %{timer: timer} = state), do: {:noreply, stand(state)}

  def handle_info({:tiebeam, _cluster, {:lost, :singleton, _name, token}}, %{token: token} = state),
    do: {:noreply, state |> lose() |> stand()}

  # Nobody would say when it is lost. The next core of this node knows nothing of it.
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state) do
    state = if state.runner, do: lose(state), else: state
    {:noreply, cool(%{state | monitor: nil, asked: nil}, @pause)}
  end

  def handle_info({:EXIT, runner, reason}, %{runner: runner} = state) do
    {:noreply, stopped(%{state | runner: nil}, reason)}
  end

  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{runner: nil}), do: :ok

  def terminate(_reason, state) do
    state = if state.part == :active, do: stop_child(state, :shutdown), else: state
    %{token: token, runner: runner, monitor: monitor} = state

    receive do
      {:EXIT, ^runner, _reason} -> release(state)
      {:tiebeam, _cluster, {:lost, :singleton, _name, ^token}} -> lose(state)
      {:DOWN, ^monitor, :process, _pid, _reason} -> lose(state)
    end
  end

  # Asks for the claim, and waits for as long as another one has it.
  defp stand(%{options: %{cluster: cluster} = options} = state) do
    state = state |> cancel_timer() |> watch_server()

    if state.monitor == nil do
      cool(state, @pause)
    else
      value = Leadership.holder(self(), options.metadata)
      command = {:acquire, :singleton, state.name, value, nil, Name.encode_pid(self()), true}
      %{state | part: :standing, asked: Leadership.ask_async(cluster, command, @wait, self())}
    end
  rescue
    # The server ended between the two.
    ArgumentError -> cool(state, @pause)
  end

  defp watch_server(%{monitor: nil} = state) do
    case Process.whereis(Table.process(state.options.cluster)) do
      nil -> state
      pid -> %{state | monitor: Process.monitor(pid)}
    end
  end

  defp watch_server(state), do: state

  defp cool(state, pause) do
    state = cancel_timer(state)
    %{state | part: :cooling, token: nil, timer: :erlang.start_timer(pause, self(), :stand)}
  end

  defp cancel_timer(state) do
    if state.timer, do: :erlang.cancel_timer(state.timer, async: true, info: false)
    %{state | timer: nil}
  end

  defp activate(%{options: options} = state, token) do
    # The priority of this process is not that of the child.
    runner = spawn_link(fn -> run(options, token) end)
    %{state | part: :active, token: token, runner: runner}
  end

  # Gives the claim back, behind the child's end.
  defp stop_child(state, reason) do
    send(state.runner, {:stop, reason})
    %{state | part: {:stopping, reason}}
  end

  defp stopped(state, reason) do
    unless reason == :normal do
      Logger.warning(
        "#{inspect(state.options.cluster)}: the singleton #{inspect(state.options.name)} steps down on this node: " <>
          Exception.format_exit(reason)
      )
    end

    release(state)
    for from <- state.waiting, do: GenServer.reply(from, :ok)
    cool(%{state | waiting: []}, state.options.cooldown)
  end

  defp release(state) do
    Leadership.ask(state.options.cluster, {:release, :singleton, state.name, state.token}, @release)
  catch
    # It is given back when it is known that this process ended, or with the session.
    :exit, _reason -> :unknown
  end

  # Somebody else may have it in a moment: nothing orderly takes that short.
  defp lose(%{runner: runner, options: options} = state) do
    {:links, links} = Process.info(runner, :links) || {:links, []}
    for linked <- [runner | links], is_pid(linked) and linked != self(), do: Process.exit(linked, :kill)

    receive do
      {:EXIT, ^runner, _reason} -> :ok
    end

    if options.on_passive, do: spawn(fn -> options.on_passive.(:lost) end)
    for from <- state.waiting, do: GenServer.reply(from, :ok)
    %{state | runner: nil, token: nil, waiting: []}
  end

  # The process that has the child.

  defp run(options, token) do
    Process.flag(:trap_exit, true)
    if options.on_active, do: options.on_active.(token)

    case start_child(options.child, token) do
      {:ok, child, spec} ->
        reason = await_end(child, spec)
        if options.on_passive, do: options.on_passive.(reason)
        with {:exit, reason} <- reason, do: exit({:child_ended, reason})

      {:error, reason} ->
        if options.on_passive, do: options.on_passive.({:exit, reason})
        exit({:child_not_started, reason})
    end
  end

  defp start_child(nil, _token), do: {:ok, nil, nil}
  defp start_child(child, token) when is_function(child, 1), do: start_child(child.(token), token)

  defp start_child(child, _token) do
    %{start: {module, function, arguments}} = spec = Supervisor.child_spec(child, [])

    case apply(module, function, arguments) do
      {:ok, pid} -> {:ok, pid, spec}
      {:ok, pid, _info} -> {:ok, pid, spec}
      :ignore -> {:ok, nil, spec}
      {:error, reason} -> {:error, reason}
    end
  end

  defp await_end(child, spec) do
    receive do
      {:EXIT, ^child, reason} ->
        {:exit, reason}

      {:stop, reason} ->
        if child, do: shut_down(child, shutdown(spec))
        reason
    end
  end

  defp shutdown(%{shutdown: shutdown}), do: shutdown
  defp shutdown(%{type: :supervisor}), do: :infinity
  defp shutdown(_spec), do: 5_000

  # As a supervisor does.
  defp shut_down(child, :brutal_kill), do: kill(child)

  defp shut_down(child, timeout) do
    Process.exit(child, :shutdown)

    receive do
      {:EXIT, ^child, _reason} -> :ok
    after
      timeout -> kill(child)
    end
  end

  defp kill(child) do
    Process.exit(child, :kill)

    receive do
      {:EXIT, ^child, _reason} -> :ok
    end
  end
end
