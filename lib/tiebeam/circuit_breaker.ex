defmodule Tiebeam.CircuitBreaker do
  @moduledoc """
  Who has failed too often is left alone for a while: goes around the calls to one node, one name, or one service.

      children = [
        {Tiebeam.CircuitBreaker, name: MyApp.Payments}
      ]

      Tiebeam.CircuitBreaker.call(MyApp.Payments, fn ->
        Tiebeam.Pool.call({MyApp.Cluster, "payments"}, request)
      end)

  Closed, it lets every call through. After some failures in a row it opens: calls answer `{:error, {:open, milliseconds}}` at once,
  instead of keeping their callers waiting. After a pause it is half open: a few calls show whether the other is well again. It is
  the same as `CircuitBreaker` of a Rust node. Source: M. Nygard, "Release It!", 2007, chapter 5.2.

  ## What is a failure

  - An answer `{:error, reason}` with a reason that speaks against the health of whoever was asked: `:noproc`, `:noconnection`,
    `{:noconnection, node}`, `:timeout`, `{:down, reason}`, `:no_worker`, `:no_owner`, `:no_quorum`, `:busy`; or one for which the option
    `:outage?` of `call/3` is true.
  - An exit, as that of `GenServer.call/3`; it goes on to the caller.

  Any other answer is a success. An exception or a throw is neither, nor is the end of the caller: these do not say how the other is.

  ## With retries

  The breaker belongs inside: then each attempt counts, and an open breaker ends them, because `{:open, milliseconds}` is no reason to
  try again soon.

      Tiebeam.Retry.run(Tiebeam.Retry.new(attempts: 4), fn ->
        Tiebeam.CircuitBreaker.call(MyApp.Payments, fn ->
          Tiebeam.Pool.call({MyApp.Cluster, "payments"}, request)
        end)
      end)

  ## Options

  - `:name` - an atom, by which it is called; also that of its process and of its ETS table. Required.
  - `:failures` - so many failures in a row open it. Default: 5.
  - `:pause` - for how many milliseconds nobody is let through then. Default: 30,000.
  - `:trials` - how many calls are let through after the pause: if all of them end well it closes, if one fails it opens again. Default: 1.

  An example:

      iex> {:ok, _} = Tiebeam.CircuitBreaker.start_link(name: MyApp.Quotes, failures: 2)
      iex> for _ <- 1..2, do: Tiebeam.CircuitBreaker.call(MyApp.Quotes, fn -> {:error, :noproc} end)
      [error: :noproc, error: :noproc]
      iex> {:error, {:open, milliseconds}} = Tiebeam.CircuitBreaker.call(MyApp.Quotes, fn -> raise "nobody is asked" end)
      iex> milliseconds in 0..30_000
      true
      iex> Tiebeam.CircuitBreaker.state(MyApp.Quotes)
      :open

  Calls through a closed breaker read a table; only failures, and successes after a failure, send anything to its process.
  """

  use GenServer

  require Logger

  alias Tiebeam.CircuitBreaker.Machine
  alias Tiebeam.Leadership

  @typedoc "A breaker: its `:name`."
  @type t :: atom

  @typedoc "Whether calls are let through: `:closed` - they are; `:open` - none is; `:half_open` - a few are, to see how they end."
  @type state :: :closed | :open | :half_open

  @defaults [name: nil, failures: 5, pause: 30_000, trials: 1]

  # A day.
  @max_pause 86_400_000

  @doc """
  Starts a breaker, closed, linked to the caller. The options are listed [above](#module-options); raises `ArgumentError` for those
  that cannot be used.

      iex> Tiebeam.CircuitBreaker.start_link(name: MyApp.Payments, failures: 0)
      ** (ArgumentError) the option :failures must be a positive integer, got: 0
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    options = Leadership.options!(options, @defaults)

    unless is_atom(options.name) and options.name not in [nil, true, false],
      do: raise(ArgumentError, "the option :name must be an atom, got: #{inspect(options.name)}")

    for key <- [:failures, :trials],
        value = options[key],
        not (is_integer(value) and value > 0),
        do:
          raise(
            ArgumentError,
            "the option #{inspect(key)} must be a positive integer, got: #{inspect(value)}"
          )

    unless is_integer(options.pause) and options.pause in 0..@max_pause,
      do: raise(ArgumentError, "the option :pause must be milliseconds, got: #{inspect(options.pause)}")

    GenServer.start_link(__MODULE__, options, name: options.name)
  end

  @doc "The child specification."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{id: {__MODULE__, options[:name]}, start: {__MODULE__, :start_link, [options]}}
  end

  @doc """
  Calls `fun` in the calling process, if it is let through, and answers what that answers; otherwise `{:error, {:open, milliseconds}}`:
  nobody was asked, and after so long one is let through again (0 while those that are tried have not ended).

  Options: `:outage?`, a function of the reason in `{:error, reason}`, which decides what is a failure [instead of the
  list](#module-what-is-a-failure).

      Tiebeam.CircuitBreaker.call(MyApp.Quotes, fn -> MyApp.Http.get(url) end, outage?: fn _reason -> true end)

  Raises `ArgumentError` if there is no breaker of that name on this node.
  """
  @spec call(t, (() -> answer), keyword) :: answer | {:error, {:open, milliseconds :: non_neg_integer}}
        when answer: term
  def call(breaker, fun, options \\ []) when is_function(fun, 0) do
    %{outage?: outage?} = Leadership.options!(options, outage?: &outage?/1)

    case admit(breaker) do
      {:ok, permit} -> run(breaker, permit, fun, outage?)
      {:error, pause} -> {:error, {:open, pause}}
    end
  end

  @doc "Whether calls are let through just now. Reads a table. Raises as `call/3`."
  @spec state(t) :: state
  def state(breaker) do
    case read(breaker) do
      {:open, _epoch, until} -> if now() < until, do: :open, else: :half_open
      {phase, _epoch, _detail} -> phase
    end
  end

  # What any caller may see without asking: a call through a closed breaker costs a look-up.
  defp admit(breaker) do
    now = now()

    case read(breaker) do
      {:closed, epoch, _clean?} -> {:ok, {epoch, nil}}
      {:open, _epoch, until} when now < until -> {:error, until - now}
      _to_be_tried -> GenServer.call(breaker, :admit)
    end
  end

  defp run(breaker, permit, fun, outage?) do
    answer = fun.()

    case answer do
      {:error, reason} -> ended(breaker, permit, if(outage?.(reason), do: :failed, else: :succeeded))
      _ -> ended(breaker, permit, :succeeded)
    end

    answer
  catch
    kind, reason ->
      ended(breaker, permit, if(kind == :exit, do: :failed, else: :given_up))
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp ended(breaker, {epoch, trial} = permit, how) do
    cond do
      # A closed breaker without failures has nothing to learn from these.
      trial == nil and how == :given_up -> :ok
      trial == nil and how == :succeeded and match?({:closed, ^epoch, true}, read(breaker)) -> :ok
      true -> GenServer.call(breaker, {:ended, permit, how})
    end
  catch
    # The breaker ended meanwhile: the answer that the caller has counts more.
    _kind, _gone -> :ok
  end

  defp read(breaker) do
    [{:phase, phase, epoch, detail}] = :ets.lookup(breaker, :phase)
    {phase, epoch, detail}
  rescue
    ArgumentError ->
      reraise ArgumentError,
              "there is no circuit breaker #{inspect(breaker)} on this node. " <>
                "Start it in a supervision tree: {Tiebeam.CircuitBreaker, name: #{inspect(breaker)}}",
              __STACKTRACE__
  end

  defp outage?({:noconnection, _node}), do: true
  defp outage?({:down, _reason}), do: true

  defp outage?(reason),
    do: reason in [:noproc, :noconnection, :timeout, :no_worker, :no_owner, :no_quorum, :busy]

  @impl true
  def init(options) do
    :ets.new(options.name, [:named_table, :protected, read_concurrency: true])
    machine = struct!(Machine, Map.take(options, [:failures, :pause, :trials]))
    {:ok, show(%{name: options.name, machine: machine, trials: %{}})}
  end

  # A trial whose caller ends makes room for another.
  @impl true
  def handle_call(:admit, {caller, _tag}, state) do
    case Machine.admit(state.machine, now()) do
      {:ok, epoch, %{phase: {:half_open, _, _}} = machine} ->
        trial = Process.monitor(caller)
        {:reply, {:ok, {epoch, trial}}, show(%{put_in(state.trials[trial], epoch) | machine: machine})}

      {:ok, epoch, machine} ->
        {:reply, {:ok, {epoch, nil}}, show(%{state | machine: machine})}

      {:error, pause, machine} ->
        {:reply, {:error, pause}, show(%{state | machine: machine})}
    end
  end

  def handle_call({:ended, {epoch, trial}, how}, _from, state) do
    if trial, do: Process.demonitor(trial, [:flush])
    {:reply, :ok, ended_here(%{state | trials: Map.delete(state.trials, trial)}, epoch, how)}
  end

  @impl true
  def handle_info({:DOWN, trial, :process, _pid, _reason}, state) do
    case Map.pop(state.trials, trial) do
      {nil, _trials} -> {:noreply, state}
      {epoch, trials} -> {:noreply, ended_here(%{state | trials: trials}, epoch, :given_up)}
    end
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp ended_here(%{machine: before} = state, epoch, how) do
    machine = Machine.ended(before, epoch, how, now())
    if machine.epoch != before.epoch, do: log(machine, state.name)
    show(%{state | machine: machine})
  end

  defp log(%{phase: {:open, _until}} = machine, name) do
    Logger.warning("the circuit breaker #{inspect(name)} opens: nobody is asked for #{machine.pause} ms")
  end

  defp log(%{phase: {:closed, _failures}}, name),
    do: Logger.info("the circuit breaker #{inspect(name)} closes")

  defp show(%{name: name, machine: %{epoch: epoch} = machine} = state) do
    row =
      case machine.phase do
        {:closed, failures} -> {:phase, :closed, epoch, failures == 0}
        {:open, until} -> {:phase, :open, epoch, until}
        {:half_open, _running, _successes} -> {:phase, :half_open, epoch, nil}
      end

    :ets.insert(name, row)
    state
  end

  defp now, do: System.monotonic_time(:millisecond)
end
