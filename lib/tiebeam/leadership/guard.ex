defmodule Tiebeam.Leadership.Guard do
  @moduledoc false
  # Runs a function under something that may be lost: leadership, a lock. The function has a process of its own, which is
  # killed when it is lost; the guard stands between that process and the caller.

  alias Tiebeam.Table

  @typedoc """
  What a guard does: `take` gets what the function needs, `left` says how long that is good for (milliseconds, `:infinity`, or
  `:lost`), `release` gives it back.
  """
  @type t :: %{
          take: (() -> {:ok, token :: pos_integer} | {:error, term}),
          left: (token :: pos_integer -> timeout | :lost),
          release: (token :: pos_integer -> term)
        }

  @doc """
  Runs `work` with the token, and answers `{:ok, result}`, what `take` answers if it fails, or `{:error, :lost}`. If `work`
  fails the caller exits with its reason.
  """
  @spec run(Tiebeam.name(), t, (pos_integer -> result)) :: {:ok, result} | {:error, term} when result: term
  def run(cluster, guard, work) do
    caller = self()
    server = Table.process(cluster)
    {pid, monitor} = spawn_monitor(fn -> guard(caller, server, guard, work) end)

    receive do
      {^pid, answer} ->
        Process.demonitor(monitor, [:flush])
        answer

      {:DOWN, ^monitor, :process, _pid, reason} ->
        exit(reason)
    end
  end

  defp guard(caller, server, guard, work) do
    # It must have its turn before what it guards against.
    Process.flag(:priority, :high)
    Process.flag(:trap_exit, true)
    monitors = %{caller: Process.monitor(caller), server: Process.monitor(server)}

    case guard.take.() do
      {:ok, token} ->
        me = self()
        worker = spawn_link(fn -> work(me, work, token) end)
        answer = watch(worker, token, guard, monitors)
        send(caller, {self(), answer})

      error ->
        send(caller, {self(), error})
    end
  end

  # The priority of the guard is not that of the work.
  defp work(guard, work, token), do: send(guard, {:done, self(), work.(token)})

  defp watch(worker, token, guard, %{caller: caller, server: server} = monitors) do
    left = guard.left.(token)

    receive do
      {:done, ^worker, result} ->
        guard.release.(token)
        {:ok, result}

      {:EXIT, ^worker, reason} ->
        guard.release.(token)
        exit(reason)

      {:DOWN, ^caller, :process, _pid, _reason} ->
        kill(worker)
        guard.release.(token)
        exit(:normal)

      # Nobody would say when it is lost.
      {:DOWN, ^server, :process, _pid, _reason} ->
        lost(worker)

      {:tiebeam_guard, :lost} ->
        lost(worker)

      {:tiebeam, _cluster, {:lost, _kind, _name, ^token}} ->
        lost(worker)
    after
      if(left == :lost, do: 0, else: left) ->
        if left == :lost, do: lost(worker), else: watch(worker, token, guard, monitors)
    end
  end

  defp lost(worker) do
    kill(worker)
    {:error, :lost}
  end

  defp kill(worker) do
    Process.exit(worker, :kill)

    receive do
      {:EXIT, ^worker, _reason} -> :ok
    end
  end
end
