defmodule Tiebeam.Command do
  @moduledoc """
  A program of the operating system as a child: it runs for as long as the child does, and never longer.

      {Tiebeam.Singleton,
       cluster: MyApp.Cluster,
       name: "db",
       child: &{Tiebeam.Command, run: ["litestream", "replicate", "-config", "/etc/litestream.yml"], token: &1}}

  As the child of a `Tiebeam.Singleton`, a `Tiebeam.Pool` or any supervisor. What the program writes goes to the `Logger`; when it ends, the child
  ends. The guide "Programs of the operating system" has whole examples: an address that moves with the active node, a database, a unit of
  systemd.

  ## How it ends

  - In good order (a supervisor that stops, a singleton that steps down): the program is sent TERM, and KILL when it is still there after
    `:grace`. Then `:stop` is run, and then the child has ended.
  - When the child is killed, as that of a singleton whose claim is lost, or the whole VM is gone, however that came: the program is sent KILL at
    once, and `:stop` is run, which nobody waits for. A shell between the VM and the program does that: it reads the end of its input.

  Where there is `setsid` (Linux) a signal goes to the whole process group of the program, and what the program leaves behind in that is killed when it ends.
  If the shell itself is killed by hand, nobody is left to do any of this. Needs `/bin/sh`.

  ## Options

  A command is a list of the program and its arguments, or a string, which a shell reads.

  - `:run` - the program. Without it, what `:start` did is taken to go on until `:stop`.
  - `:start` - is run first, and must end with 0; the child is started when it has. For whatever comes before: restoring a database,
    `systemctl start`. Whoever runs it may be made to wait for as long as `:start_timeout`.
  - `:stop` - is run at the end, whatever came before, also when `:start` failed: as `ExecStopPost=` of systemd.
  - `:check` - is run every `:check_interval` milliseconds (default: 5,000); not to end with 0 in `:check_timeout` (default: 5,000) is a failure, and after
    `:check_failures` in a row (default: 3) the child ends, with the reason `{:unhealthy, count}`.
  - `:token` - the token of the singleton, which all of these find in the variable `TIEBEAM_TOKEN`: to be stored with what is written, so that a late writer can
    be refused.
  - `:env` - other variables, a map of strings; `nil` takes one away. Reports of supervisors show them: a secret is better kept in a file.
  - `:cd` - the directory in which they are run.
  - `:grace` - for how many milliseconds the program may go on after TERM. Default: 10,000.
  - `:start_timeout`, `:stop_timeout` - how long `:start` and `:stop` may take, in milliseconds. Default: 60,000 each. A `:start` that takes longer is killed; a `:stop`
    goes on by itself.
  - `:log` - the level at which output is logged, a line each; or a function of the line, called in the child's process; or `false`. Default: `:info`. What a slow log
    cannot take is dropped, and counted there.
  - `:name` - the name of the child's process, an atom. Default: none.

  At least one of `:run` and `:start` is required.

      iex> {:ok, command} = Tiebeam.Command.start_link(run: ["sleep", "1000"])
      iex> is_integer(Tiebeam.Command.os_pid(command))
      true
      iex> GenServer.stop(command)
      :ok
  """

  use GenServer

  require Logger

  alias Tiebeam.Leadership

  @typedoc "A program with its arguments, or what a shell reads."
  @type command :: [String.t(), ...] | String.t()

  @defaults [
    run: nil,
    start: nil,
    stop: nil,
    check: nil,
    token: nil,
    env: %{},
    cd: nil,
    grace: 10_000,
    start_timeout: 60_000,
    stop_timeout: 60_000,
    check_interval: 5_000,
    check_timeout: 5_000,
    check_failures: 3,
    log: :info,
    name: nil
  ]

  # A shell has programs in the background ignore INT and QUIT.
  @signals [:hup, :term, :kill, :usr1, :usr2, :stop, :cont]

  @levels [:emergency, :alert, :critical, :error, :warning, :notice, :info, :debug]

  # A longer line is logged in parts.
  @max_line 4_096

  # Lines that may wait while the log is slow: a port does not wait for its owner.
  @max_waiting 1_000

  # A day.
  @max_timeout 86_400_000

  # What it takes to hear of an end, in milliseconds.
  @margin 1_000

  # Descriptor 3 is the input, which only the watcher of a program reads; on 4 the shell says how far it is. Programs get neither.
  # What `:stop` writes is drained: when the VM is gone there is nobody to read it, and it must not fail for that.
  # There is no group yet when a signal comes before `setsid` has made it; without `setsid` there never is.
  @functions """
  exec 3<&0 4>&1 </dev/null
  quiet() { "$@" 2>/dev/null; }
  drain() { quiet cat; cat >/dev/null; }
  tell() { quiet kill -s "$1" -- "-$child" || quiet kill -s "$1" "$child"; }
  guarded() {
    started=$1
    shift
    if command -v setsid >/dev/null 2>&1; then
      setsid "$@" 3<&- 4>&- &
    else
      "$@" 3<&- 4>&- &
    fi
    child=$!
    { while read -r signal <&3; do tell "$signal"; done; tell KILL; } >/dev/null 2>&1 4>&- &
    watcher=$!
    if [ "$started" = yes ]; then say "$child"; fi
    quiet wait "$child"
    status=$?
    quiet kill "$watcher"
    quiet wait "$watcher"
    quiet kill -s KILL -- "-$child"
    return "$status"
  }
  """

  @doc """
  Starts the program, linked to the caller, and waits until `:start` has ended. The options are listed [above](#module-options); raises
  `ArgumentError` for those that cannot be used. `{:error, {:start_failed, status}}` or `{:error, :start_timeout}` if `:start` did not end well; `:stop` has been
  run then.

  A program that cannot be found ends with 127, as in a shell.
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    options = options!(options)

    GenServer.start_link(
      __MODULE__,
      options,
      if(options.name, do: [name: options.name], else: [])
    )
  end

  @doc "The child specification. Its shutdown takes as long as `:grace` and `:stop_timeout` together."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    checked = options!(options)

    %{
      id: {__MODULE__, options[:name] || options[:run] || options[:start]},
      start: {__MODULE__, :start_link, [options]},
      shutdown: checked.grace + checked.stop_timeout + 2 * @margin
    }
  end

  @doc "The number that the operating system has for the program; `nil` without `:run`."
  @spec os_pid(GenServer.server()) :: pos_integer | nil
  def os_pid(command), do: GenServer.call(command, :os_pid)

  @doc """
  Sends the program a signal, such as `:hup` for it to read its configuration again: #{Enum.map_join(@signals, ", ", &"`#{inspect(&1)}`")}. Does
  not wait for what comes of it.
  """
  @spec signal(GenServer.server(), atom) :: :ok
  def signal(command, signal) when signal in @signals, do: GenServer.call(command, {:signal, signal})

  def signal(_command, signal),
    do: raise(ArgumentError, "the signals are #{inspect(@signals)}, got: #{inspect(signal)}")

  defp options!(options) do
    options = Leadership.options!(options, @defaults)

    unless options.run || options.start,
      do:
        raise(ArgumentError, "one of the options :run and :start is required: a list of strings, or a string")

    for key <- [:run, :start, :stop, :check], command = options[key], not command?(command) do
      raise ArgumentError,
            "the option #{inspect(key)} must be a program with its arguments, a list of strings, or a string for a shell, got: " <>
              inspect(command)
    end

    for key <- [:grace, :start_timeout, :stop_timeout, :check_interval, :check_timeout, :check_failures],
        value = options[key],
        not (is_integer(value) and value in 1..@max_timeout),
        do:
          raise(
            ArgumentError,
            "the option #{inspect(key)} must be a positive integer, got: #{inspect(value)}"
          )

    unless options.token == nil or Leadership.revision?(options.token),
      do: raise(ArgumentError, "the option :token must be a token, got: #{inspect(options.token)}")

    unless options.log == false or options.log in @levels or is_function(options.log, 1),
      do:
        raise(
          ArgumentError,
          "the option :log must be a level of the log, a function or false, got: #{inspect(options.log)}"
        )

    unless is_atom(options.name),
      do: raise(ArgumentError, "the option :name must be an atom, got: #{inspect(options.name)}")

    unless options.cd == nil or text?(options.cd),
      do: raise(ArgumentError, "the option :cd must be a directory, got: #{inspect(options.cd)}")

    unless is_map(options.env) and
             Enum.all?(options.env, fn {key, value} -> text?(key) and (value == nil or text?(value)) end),
           do: raise(ArgumentError, "the option :env must be a map of strings, got: #{inspect(options.env)}")

    options
  end

  defp command?([_ | _] = words), do: Enum.all?(words, &text?/1)
  defp command?(line), do: text?(line)

  # The operating system ends its strings with a zero.
  defp text?(text), do: is_binary(text) and text != "" and not String.contains?(text, <<0>>)

  @impl true
  def init(options) do
    # It stops the program before it ends.
    Process.flag(:trap_exit, true)

    # No program can know it.
    mark = "tiebeam #{Base.encode16(:crypto.strong_rand_bytes(8))} "

    state = %{
      options: options,
      label: label(options.run || options.start),
      port: open(script(options, mark), options),
      os_pid: nil,
      mark: mark,
      checker: nil,
      timer: nil,
      failures: 0,
      part: "",
      dropped: 0
    }

    await_start(state, now() + options.start_timeout)
  end

  defp await_start(%{port: port, mark: mark} = state, deadline) do
    receive do
      {^port, {:data, {_ending, text} = data}} ->
        case String.split(text, mark) do
          ["", "0"] -> {:ok, check_later(state)}
          ["", os_pid] -> {:ok, check_later(%{state | os_pid: String.to_integer(os_pid)})}
          _output -> await_start(output(state, data), deadline)
        end

      {^port, {:exit_status, status}} ->
        {:stop, {:start_failed, status}}
    after
      max(deadline - now(), 0) ->
        stop_program(state)
        {:stop, :start_timeout}
    end
  end

  @impl true
  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}

  def handle_call({:signal, signal}, _from, state) do
    tell(state.port, signal)
    {:reply, :ok, state}
  end

  @impl true
  def handle_info({port, {:data, data}}, %{port: port} = state), do: {:noreply, output(state, data)}

  def handle_info({port, {:exit_status, 0}}, %{port: port} = state),
    do: {:stop, {:shutdown, {:exited, 0}}, %{state | port: nil}}

  def handle_info({port, {:exit_status, status}}, %{port: port} = state),
    do: {:stop, {:exited, status}, %{state | port: nil}}

  def handle_info({:timeout, timer, :check}, %{timer: timer, options: options} = state),
    do: {:noreply, %{state | checker: spawn_link(fn -> exit({:checked, check(options)}) end)}}

  def handle_info({:EXIT, checker, {:checked, result}}, %{checker: checker} = state),
    do: checked(state, result)

  def handle_info({:EXIT, checker, reason}, %{checker: checker} = state), do: checked(state, reason)
  def handle_info({:EXIT, port, reason}, %{port: port} = state), do: {:stop, reason, %{state | port: nil}}
  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{port: nil}), do: :ok
  def terminate(_reason, state), do: stop_program(state)

  defp stop_program(%{port: port, options: options} = state) do
    tell(port, :term)

    with :still_there <- await_end(state, options.grace),
         # What waits for `:stop` does not read it.
         :ok <- tell(port, :kill),
         :still_there <- await_end(state, options.stop_timeout + @margin) do
      Logger.error(
        "#{state.label}: has not ended in #{options.grace + options.stop_timeout} ms; it is left to itself"
      )
    end

    :ok
  end

  defp await_end(state, timeout), do: await_end_until(state, now() + timeout)

  defp await_end_until(%{port: port} = state, deadline) do
    receive do
      {^port, {:exit_status, _status}} -> :ended
      {^port, {:data, data}} -> state |> output(data) |> await_end_until(deadline)
      {:EXIT, ^port, _reason} -> :ended
    after
      max(deadline - now(), 0) -> :still_there
    end
  end

  defp tell(port, signal) do
    Port.command(port, [signal |> Atom.to_string() |> String.upcase(), "\n"])
    :ok
  rescue
    # It has just ended.
    ArgumentError -> :ok
  end

  # Checks.

  defp check_later(%{options: %{check: nil}} = state), do: state

  defp check_later(%{options: options} = state) do
    %{state | checker: nil, timer: :erlang.start_timer(options.check_interval, self(), :check)}
  end

  defp checked(state, {:exited, 0}), do: {:noreply, check_later(%{state | failures: 0})}

  defp checked(state, result) do
    state = %{state | failures: state.failures + 1}

    Logger.warning(
      "#{state.label}: check #{state.failures} of #{state.options.check_failures} failed: #{inspect(result)}"
    )

    if state.failures >= state.options.check_failures,
      do: {:stop, {:unhealthy, state.failures}, state},
      else: {:noreply, check_later(state)}
  end

  # In a process of its own, whose end closes the port and so kills what runs.
  defp check(options) do
    port = open([@functions, "exec >/dev/null 2>&1\nguarded no ", quoted(options.check), "\n"], options)

    receive do
      {^port, {:exit_status, status}} -> {:exited, status}
    after
      options.check_timeout -> :timeout
    end
  end

  # The output.

  defp output(state, {ending, text}) do
    {:message_queue_len, waiting} = Process.info(self(), :message_queue_len)

    if waiting > @max_waiting,
      do: %{state | dropped: state.dropped + 1, part: part(ending)},
      else: log(state, ending, text)
  end

  defp log(state, ending, text) do
    if state.dropped > 0,
      do: Logger.warning("#{state.label}: #{state.dropped} lines were not logged: the log was too slow")

    # The shell ends the line before what it says, which is empty then.
    unless text == "" and state.part == "",
      do: write(state.options.log, text, state.label)

    %{state | dropped: 0, part: part(ending)}
  end

  defp write(write, text, _label) when is_function(write), do: write.(text)
  # Nothing is written but by the shell itself.
  defp write(false, _text, _label), do: :ok
  defp write(level, text, label), do: Logger.log(level, fn -> [label, ": ", printable(text)] end)

  # Whether the line goes on.
  defp part(:eol), do: ""
  defp part(:noeol), do: :more

  defp printable(text), do: if(String.valid?(text), do: text, else: inspect(text))

  # The script.

  defp open(script, options) do
    env = Map.put(options.env, "TIEBEAM_TOKEN", options.token && Integer.to_string(options.token))

    Port.open(
      {:spawn_executable, "/bin/sh"},
      [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        {:line, @max_line},
        {:args, ["-c", IO.iodata_to_binary(script)]},
        {:env,
         for({key, value} <- env, do: {to_charlist(key), if(value, do: to_charlist(value), else: false)})}
      ] ++ if(options.cd, do: [{:cd, options.cd}], else: [])
    )
  end

  defp script(options, mark) do
    [
      @functions,
      "say() { printf '\\n#{mark}%s\\n' \"$1\" >&4; }\n",
      if(options.log, do: "", else: "exec >/dev/null 2>&1\n"),
      "status=0\n",
      if(options.start, do: ["guarded no ", quoted(options.start), "\n"], else: ""),
      "if [ $status = 0 ]; then\n",
      if(options.run,
        do: ["guarded yes ", quoted(options.run), "\n"],
        else: "say 0\nwhile read -r signal <&3; do if [ \"$signal\" = TERM ]; then break; fi; done\n"
      ),
      "ended=$status\nelse ended=$status\nfi\n",
      if(options.stop, do: [quoted(options.stop), " 3<&- 4>&- 2>&1 | drain\n"], else: ""),
      "exit $ended\n"
    ]
  end

  defp quoted(line) when is_binary(line), do: quoted(["/bin/sh", "-c", line])

  defp quoted(words) do
    Enum.map_intersperse(words, " ", fn word -> ["'", String.replace(word, "'", "'\\''"), "'"] end)
  end

  defp label([program | _arguments]), do: Path.basename(program)
  defp label(line), do: line |> String.split() |> List.first("sh") |> Path.basename()

  defp now, do: System.monotonic_time(:millisecond)
end
