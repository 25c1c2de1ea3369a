defmodule Tiebeam.Pool.Runner do
  @moduledoc false
  # A worker of a `Tiebeam.Pool` with its supervisor: the runner of a slot, in the words of `Tiebeam.Placement.Manager`. It is a process
  # between the two because the worker may take long to start.

  @enforce_keys [:child, :max_restarts, :max_seconds]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          child: Tiebeam.Pool.child(),
          max_restarts: non_neg_integer,
          max_seconds: pos_integer
        }

  @doc "Starts it, linked to the caller, and does not wait for the worker."
  @spec start_link(t, slot :: non_neg_integer, token :: pos_integer | nil) :: pid
  def start_link(%__MODULE__{} = runner, slot, token) do
    manager = self()
    metadata = if token, do: %{slot: slot, token: token}, else: %{}
    # The priority of the manager is not that of the worker.
    spawn_link(fn -> run(runner, manager, metadata, token) end)
  end

  defp run(runner, manager, metadata, token) do
    Process.flag(:trap_exit, true)
    child = if is_function(runner.child, 1), do: runner.child.(token), else: runner.child
    # There is one as long as the slot is this node's.
    %{start: start} = spec = Supervisor.child_spec(child, restart: :permanent)
    spec = %{spec | start: {__MODULE__, :start_worker, [start, self()]}}
    options = [strategy: :one_for_one, max_restarts: runner.max_restarts, max_seconds: runner.max_seconds]

    case Supervisor.start_link([spec], options) do
      {:ok, supervisor} ->
        send(manager, {:started, self()})
        serve(manager, supervisor, metadata, nil)

      {:error, reason} ->
        exit(reason)
    end
  end

  defp serve(manager, supervisor, metadata, worker) do
    receive do
      {:worker, worker} ->
        send(manager, {:worker, worker, metadata})
        serve(manager, supervisor, metadata, worker)

      # Another node may run it in a moment: nothing orderly takes that short.
      {:release, :lost} ->
        kill(supervisor, worker)

      {:release, _reason} ->
        Process.exit(supervisor, :shutdown)
        await_end(supervisor, worker, manager)

      {:EXIT, ^supervisor, reason} ->
        exit(reason)

      {:EXIT, ^manager, _reason} ->
        kill(supervisor, worker)

      {:EXIT, _other, _reason} ->
        serve(manager, supervisor, metadata, worker)
    end
  end

  @spec await_end(pid, pid | nil, pid) :: no_return
  defp await_end(supervisor, worker, manager) do
    receive do
      {:EXIT, ^supervisor, _reason} -> exit(:shutdown)
      {:release, :lost} -> kill(supervisor, worker)
      {:EXIT, ^manager, _reason} -> kill(supervisor, worker)
    end
  end

  @spec kill(pid, pid | nil) :: no_return
  defp kill(supervisor, worker) do
    # The supervisor first, or it would start another one.
    Process.exit(supervisor, :kill)
    if worker, do: Process.exit(worker, :kill)
    exit(:shutdown)
  end

  @doc false
  # In the supervisor, whenever the worker starts.
  def start_worker({module, function, arguments}, runner) do
    case apply(module, function, arguments) do
      {:ok, pid} ->
        send(runner, {:worker, pid})
        {:ok, pid}

      {:ok, pid, info} ->
        send(runner, {:worker, pid})
        {:ok, pid, info}

      other ->
        other
    end
  end
end
