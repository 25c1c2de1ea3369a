defmodule Tiebeam.Reporter do
  @moduledoc false
  # Tells the log and `:telemetry` what the core notices. A process of its own, because the handlers of both are the
  # user's code, and members judge this node by how soon `Tiebeam.Server` answers.

  use GenServer

  require Logger

  alias Tiebeam.Event

  # It is no dependency: whoever has it gets the events.
  @compile {:no_warn_undefined, :telemetry}

  # Notices that may wait for slow handlers; what comes beyond is dropped, and counted in the log. Ordinary clusters have
  # a handful a minute, but what a peer sends may be a notice each.
  @max_waiting 1024

  @enforce_keys [:cluster, :process, :waiting, :telemetry?]
  defstruct @enforce_keys

  @typep t :: %__MODULE__{
           cluster: atom,
           process: atom,
           waiting: :atomics.atomics_ref(),
           telemetry?: boolean
         }

  @doc "The reporter of a cluster, shared by its process and by who publishes."
  @spec new(cluster :: atom) :: t
  def new(cluster) do
    # How many wait, and how many were dropped since it was last said.
    %__MODULE__{
      cluster: cluster,
      process: Module.concat(cluster, Reporter),
      waiting: :atomics.new(2, signed: false),
      telemetry?: Code.ensure_loaded?(:telemetry)
    }
  end

  @spec start_link(t) :: GenServer.on_start()
  def start_link(reporter), do: GenServer.start_link(__MODULE__, reporter, name: reporter.process)

  @doc "Hands on a notice, without waiting."
  @spec publish(t, Tiebeam.Native.notice() | Tiebeam.Leadership.Driver.notice()) :: :ok
  def publish(reporter, notice), do: hand_on(reporter, {:notice, notice})

  @doc "Hands on an event for telemetry alone, without waiting. Nothing, where there is none."
  @spec measure(t, [atom], map, map) :: :ok
  def measure(%__MODULE__{telemetry?: false}, _event, _measurements, _metadata), do: :ok

  def measure(reporter, event, measurements, metadata),
    do: hand_on(reporter, {:measured, event, measurements, metadata})

  defp hand_on(%__MODULE__{waiting: waiting} = reporter, message) do
    pid = Process.whereis(reporter.process)

    cond do
      pid == nil ->
        :ok

      :atomics.get(waiting, 1) >= @max_waiting ->
        :atomics.add(waiting, 2, 1)

      true ->
        :atomics.add(waiting, 1, 1)
        send(pid, message)
        :ok
    end
  end

  @impl true
  def init(reporter) do
    # Those of a process that crashed went with it.
    :atomics.put(reporter.waiting, 1, 0)
    {:ok, reporter}
  end

  @impl true
  def handle_info({:notice, notice}, %{cluster: cluster} = reporter) do
    log(notice, inspect(cluster))
    event = Event.from_notice(notice)
    if reporter.telemetry? and event != nil, do: event |> describe() |> execute(cluster)
    reported(reporter)
  end

  def handle_info({:measured, event, measurements, metadata}, reporter) do
    execute({event, measurements, metadata}, reporter.cluster)
    reported(reporter)
  end

  def handle_info(_message, reporter), do: {:noreply, reporter}

  defp reported(%{cluster: cluster, waiting: waiting} = reporter) do
    if :atomics.sub_get(waiting, 1, 1) == 0 do
      case :atomics.exchange(waiting, 2, 0) do
        0 ->
          :ok

        dropped ->
          Logger.warning("#{inspect(cluster)}: #{dropped} notices were not reported: handlers were too slow")
      end
    end

    {:noreply, reporter}
  end

  defp log({:refused, node, identity}, cluster) do
    Logger.warning(
      "#{cluster}: #{node} is connected but in another cluster (#{inspect(identity)}); " <>
        "neither takes the other for a member. If it should be one, give both the same `cluster:`"
    )
  end

  defp log({:ignored, node, why}, cluster) do
    Logger.warning("#{cluster}: ignored a message of #{node}: #{why}")
  end

  defp log({:contested, member, reason}, cluster) do
    Logger.warning(
      "#{cluster}: #{member.node} seems dead and stays connected (#{inspect(reason)}); its connection decides"
    )
  end

  defp log({:conflict, member, creation}, cluster) do
    Logger.warning(
      "#{cluster}: two running nodes are called #{member.node}, of creation #{member.creation} and #{creation}; " <>
        "the first is kept. End one of them"
    )
  end

  defp log({:stalled, late}, cluster) do
    Logger.warning(
      "#{cluster}: this node stood still for #{late} ms. If that happens often, it needs more processor time"
    )
  end

  defp log({:foreign_group, node}, cluster) do
    Logger.warning(
      "#{cluster}: #{node} agrees on a leader with a group that was founded apart from this one; the two refuse each other. " <>
        "Stop the nodes of one of them, remove their data directories and start them again"
    )
  end

  defp log({:group_stopped, why}, cluster) do
    Logger.error("#{cluster}: this node takes no part in its group any more: #{why}")
  end

  # Those have messages of their own.
  defp log({:group, {tag, _}, _text}, _cluster) when tag in [:foreign, :stopped], do: :ok

  defp log({:group, {:not_founded, _missing}, text}, cluster) do
    Logger.warning(
      "#{cluster}: #{text}. Until then nobody leads, and no key or lock can be had. A voter must run, be connected, and be started " <>
        "with the same `:voters`"
    )
  end

  defp log({:group, {_trouble, _}, text}, cluster), do: Logger.warning("#{cluster}: #{text}")
  defp log({:group, _well, text}, cluster), do: Logger.info("#{cluster}: #{text}")

  defp log(_notice, _cluster), do: :ok

  defp execute({name, measurements, metadata}, cluster) do
    :telemetry.execute([:tiebeam | name], measurements, Map.put(metadata, :cluster, cluster))
  end

  defp describe({:member, change, member}), do: {[:member, change], %{count: 1}, %{member: member}}

  defp describe({:leader, node, term}), do: {[:leader], %{term: term}, %{node: node}}

  defp describe({:contested, member, reason}),
    do: {[:contested], %{count: 1}, %{member: member, reason: reason}}

  defp describe({:conflict, member, creation}),
    do: {[:conflict], %{count: 1}, %{member: member, creation: creation}}

  defp describe({:refused, node, identity}), do: {[:refused], %{count: 1}, %{node: node, identity: identity}}
  defp describe({:stalled, late}), do: {[:stalled], %{milliseconds: late}, %{}}
  defp describe({:health, multiplier}), do: {[:health], %{multiplier: multiplier}, %{}}
  defp describe({:group, condition}), do: {[:group], %{count: 1}, %{condition: condition}}
  defp describe({:broadcast, node, bytes}), do: {[:broadcast], %{bytes: byte_size(bytes)}, %{node: node}}
end
