defmodule Tiebeam.CommandTest do
  use ExUnit.Case, async: true
  doctest Tiebeam.Command

  import ExUnit.CaptureLog
  import Support.Eventually

  alias Support.{BeamMember, Net}
  alias Tiebeam.Command

  # Ignores TERM, and so does what it starts.
  @stubborn "trap '' TERM; sleep 1000 & echo $! >child; while :; do sleep 0.05; done"

  setup do
    folder =
      Path.join(System.tmp_dir!(), "tiebeam_command_#{System.pid()}_#{System.unique_integer([:positive])}")

    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    %{folder: folder}
  end

  defp start(options, context), do: start_supervised!({Command, [cd: context.folder] ++ options})

  defp written(context, name), do: eventually(fn -> read(context, name) end)

  # What was written to the end.
  defp read(context, name) do
    with {:ok, text} <- File.read(Path.join(context.folder, name)),
         true <- String.ends_with?(text, "\n"),
         do: String.trim(text),
         else: (_ -> nil)
  end

  # A program that was killed may be seen until somebody took note of it.
  defp running?(os_pid) do
    case File.read("/proc/#{os_pid}/stat") do
      {:ok, stat} -> (stat |> String.split(") ") |> List.last() |> String.first()) not in ["Z", "X"]
      {:error, _} -> match?({_, 0}, System.cmd("kill", ["-0", "#{os_pid}"], stderr_to_stdout: true))
    end
  end

  defp gone(os_pid), do: eventually(fn -> not running?(os_pid) end)

  test "a program has the token, is logged, and gets TERM at the end", context do
    log =
      capture_log(fn ->
        script =
          "trap 'echo bye | tee bye; exit 0' TERM; echo \"token $TIEBEAM_TOKEN of $WHO\" | tee hi; while :; do sleep 0.05; done"

        command = start([run: script, token: 7, env: %{"WHO" => "it's me"}, grace: 60_000], context)
        assert written(context, "hi") == "token 7 of it's me"
        os_pid = Command.os_pid(command)
        assert running?(os_pid)
        stop_supervised!({Command, script})
        assert read(context, "bye") == "bye"
        refute running?(os_pid)
      end)

    assert log =~ "trap: token 7 of it's me"
    assert log =~ "trap: bye"
  end

  test "what ignores TERM is killed after the grace, with what it started", context do
    command = start([run: ["sh", "-c", @stubborn], grace: 100], context)
    os_pid = Command.os_pid(command)
    child = written(context, "child")
    GenServer.stop(command)
    refute running?(os_pid)
    if System.find_executable("setsid"), do: gone(child), else: System.cmd("kill", [child])
  end

  test "a child that is killed takes its program with it, and what stops it is run", context do
    options = [
      run: @stubborn,
      start: "echo 1 >started",
      stop: ["sh", "-c", "echo I && echo stop && echo $TIEBEAM_TOKEN >stopped"],
      token: 3
    ]

    command = start(options, context)
    assert read(context, "started") == "1"
    os_pid = Command.os_pid(command)
    Process.exit(command, :kill)
    gone(os_pid)
    assert written(context, "stopped") == "3"
  end

  test "a VM that is killed takes its programs with it", context do
    peer = BeamMember.start_node(Net.name("c"))

    spec =
      Supervisor.child_spec({Command, run: @stubborn, stop: "echo 1 >stopped", cd: context.folder},
        id: :command
      )

    {:ok, command} = Support.Beam.on(peer, :supervisor, :start_child, [:kernel_safe_sup, spec])
    os_pid = Support.Beam.on(peer, Command, :os_pid, [command])
    assert running?(os_pid)
    BeamMember.kill(peer)
    gone(os_pid)
    assert written(context, "stopped") == "1"
  end

  test "without a program, what was started is stopped", context do
    command = start([start: "echo up >state", stop: "echo down >state"], context)
    assert read(context, "state") == "up"
    assert Command.os_pid(command) == nil
    Command.signal(command, :hup)
    GenServer.stop(command)
    assert read(context, "state") == "down"
  end

  test "what cannot be started is stopped all the same, and told", context do
    Process.flag(:trap_exit, true)

    assert {:error, {:start_failed, 4}} =
             Command.start_link(
               start: ["sh", "-c", "exit 4"],
               run: "echo 1 >run",
               stop: "echo 1 >stopped",
               cd: context.folder
             )

    assert read(context, "stopped") == "1"
    assert read(context, "run") == nil

    assert {:error, :start_timeout} =
             Command.start_link(
               start: ["sleep", "1000"],
               start_timeout: 50,
               grace: 50,
               stop: "echo 2 >stopped",
               cd: context.folder
             )

    assert read(context, "stopped") == "2"
  end

  test "the end of the program is the end of the child", context do
    Process.flag(:trap_exit, true)
    {:ok, well} = Command.start_link(run: ["true"])
    assert_receive {:EXIT, ^well, {:shutdown, {:exited, 0}}}
    {:ok, ill} = Command.start_link(run: ["sh", "-c", "exit 3"], log: false)
    assert_receive {:EXIT, ^ill, {:exited, 3}}
    {:ok, missing} = Command.start_link(run: ["no-such-program-here"], cd: context.folder)
    assert_receive {:EXIT, ^missing, {:exited, 127}}

    {:ok, told} = Command.start_link(run: ["sleep", "1000"])
    Command.signal(told, :kill)
    assert_receive {:EXIT, ^told, {:exited, 137}}
  end

  test "a program whose check fails so often is stopped", context do
    Process.flag(:trap_exit, true)

    {:ok, command} =
      Command.start_link(
        run: ["sleep", "1000"],
        check: "test ! -e ill",
        check_interval: 10,
        # A machine that is busy.
        check_timeout: 60_000,
        check_failures: 2,
        stop: "echo 1 >stopped",
        cd: context.folder
      )

    os_pid = Command.os_pid(command)
    refute_receive {:EXIT, ^command, _}, 100
    File.touch!(Path.join(context.folder, "ill"))
    assert_receive {:EXIT, ^command, {:unhealthy, 2}}
    refute running?(os_pid)
    assert read(context, "stopped") == "1"
  end

  test "a check that hangs has failed, and is killed" do
    Process.flag(:trap_exit, true)
    options = [check: ["sleep", "1000"], check_interval: 10, check_timeout: 20, check_failures: 1]
    {:ok, command} = Command.start_link([run: ["sleep", "1000"]] ++ options)
    assert_receive {:EXIT, ^command, {:unhealthy, 1}}
  end

  test "a singleton runs it with its token, and not while it is passive", context do
    start_supervised!({Tiebeam, name: Commanded, process: :commanded, voters: [node()]})

    child =
      &{Command,
       run: "echo $TIEBEAM_TOKEN >token; exec sleep 1000",
       stop: "echo 1 >stopped",
       token: &1,
       cd: context.folder}

    start_supervised!({Tiebeam.Singleton, cluster: Commanded, name: "db", child: child, cooldown: 60_000})
    token = context |> written("token") |> String.to_integer()
    assert {node(), token} == Tiebeam.Singleton.whereis(Commanded, "db")
    assert Tiebeam.Singleton.step_down(Commanded, "db") == :ok
    assert read(context, "stopped") == "1"
  end

  test "options that cannot be used are refused with words that help" do
    for {options, message} <- [
          {[], ~r/one of the options :run and :start is required/},
          {[run: "a", stop: []], ~r/the option :stop must be a program with its arguments/},
          {[run: ["a", "b\0"]], ~r/the option :run must be/},
          {[run: "a", grace: 0], ~r/the option :grace must be a positive integer, got: 0/},
          {[run: "a", env: %{a: 1}], ~r/the option :env must be a map of strings/},
          {[run: "a", log: :loud], ~r/the option :log must be a level/},
          {[run: "a", often: 1], ~r/unknown option :often/}
        ],
        do: assert_raise(ArgumentError, message, fn -> Command.child_spec(options) end)

    assert_raise ArgumentError, ~r/the signals are/, fn -> Command.signal(self(), :INT) end
  end
end
