defmodule Support.OsProcess do
  @moduledoc """
  An operating system process owned by a test: its output is kept, and it never outlives the test.

  A small shell stands between the port and the program: when this VM goes away, however it goes, the shell reads the end of
  its input and kills the program.
  """
  use GenServer

  @shell """
  exec 3<&0
  sh -c 'echo "os_pid $$"; exec "$@"' sh "$@" </dev/null 3<&- &
  child=$!
  (cat <&3; kill -9 $child) >/dev/null 2>&1 &
  watcher=$!
  exec 3<&-
  wait $child
  status=$?
  kill $watcher 2>/dev/null
  exit $status
  """

  @doc "Starts `command` with `args`. Options: `:label` for its log, `:env` as a map of strings."
  def start_link(command, args, opts \\ []) do
    GenServer.start_link(__MODULE__, {command, args, opts, opts[:scope] || Support.FailureLog.scope()})
  end

  def child_spec({command, args, opts}) do
    # Made in the process of the test, started by its supervisor.
    opts = Keyword.put(opts, :scope, Support.FailureLog.scope())
    %{id: make_ref(), start: {__MODULE__, :start_link, [command, args, opts]}, restart: :temporary}
  end

  @doc "Its number, as the operating system knows it."
  def os_pid(process), do: GenServer.call(process, :os_pid, 30_000)

  @doc """
  Waits for the first output line that matches `regex`: `{:ok, captures}`, or `{:exited, status, output}` when it ended before.
  """
  def await_line(process, regex, timeout \\ 30_000),
    do: GenServer.call(process, {:await_line, regex}, timeout)

  @doc "Waits for its end: `{status, output}`. Killed by signal N is 128 + N."
  def await_exit(process, timeout \\ 30_000), do: GenServer.call(process, :await_exit, timeout)

  def output(process), do: GenServer.call(process, :output)
  def alive?(process), do: GenServer.call(process, :status) == nil

  @doc "Sends a signal (`:KILL`, `:STOP`, `:CONT`, `:TERM`, `:INT`)."
  def signal(process, name), do: send_signal(os_pid(process), name)

  @doc "The same by number. After `:STOP` it waits until every thread stands still, where the system tells (Linux)."
  defdelegate send_signal(os_pid, name), to: Tiebeam.Test.Pause, as: :signal

  @doc "Kills it and waits until it is gone."
  def kill(process) do
    signal(process, :KILL)
    {137, _} = await_exit(process)
    :ok
  end

  @impl true
  def init({command, args, opts, scope}) do
    Process.flag(:trap_exit, true)
    label = opts[:label] || Path.basename(command)
    executable = System.find_executable(command) || command
    env = for {key, value} <- opts[:env] || %{}, do: {to_charlist(key), value && to_charlist(value)}
    env = for {key, value} <- env, do: {key, value || false}

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        :use_stdio,
        {:env, env},
        {:args, ["-c", @shell, label, executable | args]}
      ])

    {:ok, %{port: port, os_pid: nil, output: "", rest: "", status: nil, waiters: [], log: {scope, label}}}
  end

  @impl true
  def handle_call(:os_pid, from, s), do: {:noreply, answer(%{s | waiters: [{from, :os_pid} | s.waiters]})}

  def handle_call({:await_line, _} = what, from, s),
    do: {:noreply, answer(%{s | waiters: [{from, what} | s.waiters]})}

  def handle_call(:await_exit, from, s),
    do: {:noreply, answer(%{s | waiters: [{from, :await_exit} | s.waiters]})}

  def handle_call(:output, _from, s), do: {:reply, s.output, s}
  def handle_call(:status, _from, s), do: {:reply, s.status, s}

  @impl true
  def handle_info({port, {:data, data}}, %{port: port} = s) do
    Support.FailureLog.add(s.log, data)
    {:noreply, s |> read(s.rest <> data) |> answer()}
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = s),
    do: {:noreply, answer(%{s | status: status})}

  def handle_info(_, s), do: {:noreply, s}

  @impl true
  def terminate(_reason, %{os_pid: os_pid, status: nil, port: port}) when os_pid != nil do
    System.cmd("kill", ["-KILL", Integer.to_string(os_pid)], stderr_to_stdout: true)

    receive do
      {^port, {:exit_status, _}} -> :ok
    after
      5_000 -> :ok
    end
  end

  def terminate(_reason, _s), do: :ok

  # The first line tells the number, before the program has its turn; all that follows is the program's own.
  defp read(%{os_pid: nil} = s, data) do
    case String.split(data, "\n", parts: 2) do
      ["os_pid " <> number, rest] -> %{s | os_pid: String.to_integer(number), output: rest, rest: ""}
      _ -> %{s | rest: data}
    end
  end

  defp read(s, data), do: %{s | output: s.output <> data, rest: ""}

  defp answer(s), do: %{s | waiters: Enum.reject(s.waiters, &answered?(&1, s))}

  defp answered?({from, what}, s) do
    case reply(what, s) do
      :wait -> false
      reply -> GenServer.reply(from, reply) == :ok
    end
  end

  defp reply(:os_pid, %{os_pid: os_pid}) when os_pid != nil, do: os_pid
  defp reply(:await_exit, %{status: status} = s) when status != nil, do: {status, s.output}

  defp reply({:await_line, regex}, s) do
    # A line counts when it is complete.
    complete = s.output |> String.split("\n") |> Enum.drop(-1)

    case Enum.find_value(complete, &Regex.run(regex, &1)) do
      nil when s.status != nil -> {:exited, s.status, s.output}
      nil -> :wait
      captures -> {:ok, captures}
    end
  end

  defp reply(_, _), do: :wait
end
