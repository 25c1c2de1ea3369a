defmodule Tiebeam.Test.Pause do
  @moduledoc false
  # A program that stands still for as long as this process lives: a stopped program cannot be ended in any good order, so a test that ends lets
  # it go on first.

  use GenServer

  # How long the threads may take to stop, in milliseconds: one that is in the kernel finishes there.
  @timeout 30_000
  @pause 10

  @spec child_spec(pos_integer) :: Supervisor.child_spec()
  def child_spec(os_pid) do
    %{id: {__MODULE__, os_pid}, start: {GenServer, :start_link, [__MODULE__, os_pid]}, restart: :temporary}
  end

  @doc "Sends a signal. After `:STOP` it waits until every thread stands still, where the system tells (Linux)."
  @spec signal(pos_integer | String.t(), atom | String.t()) :: :ok
  def signal(os_pid, name) do
    {_, 0} = System.cmd("kill", ["-#{name}", "#{os_pid}"])
    if name == :STOP, do: await_stop(os_pid, System.monotonic_time(:millisecond) + @timeout)
    :ok
  end

  defp await_stop(os_pid, deadline) do
    cond do
      "/proc/#{os_pid}/task/*/stat" |> Path.wildcard() |> Enum.all?(&stopped?/1) ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        raise "the program #{os_pid} still runs #{@timeout} ms after it was sent STOP"

      true ->
        Process.sleep(@pause)
        await_stop(os_pid, deadline)
    end
  end

  # "pid (name) state ...": the name may hold anything, the state is the letter after its last parenthesis.
  defp stopped?(stat) do
    case File.read(stat) do
      {:ok, text} -> text |> String.split(") ") |> List.last() |> String.starts_with?("T")
      {:error, _gone} -> true
    end
  end

  @impl true
  def init(os_pid) do
    Process.flag(:trap_exit, true)
    signal(os_pid, :STOP)
    {:ok, os_pid}
  end

  # It may have been killed meanwhile.
  @impl true
  def terminate(_reason, os_pid), do: System.cmd("kill", ["-CONT", "#{os_pid}"], stderr_to_stdout: true)
end
