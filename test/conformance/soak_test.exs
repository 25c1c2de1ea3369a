# A cluster of BEAM and Rust nodes in which nodes are killed, stopped, frozen and disconnected at random, for as long as one likes:
#
#     TIEBEAM_SOAK_SECONDS=86400 mix test test/conformance/soak_test.exs
#
# Every few seconds it comes to rest, is made whole, and must agree on everything: nodes, names, locks, pg members.
defmodule Conformance.SoakTest do
  use ExUnit.Case, async: true
  import Support.Eventually
  alias Support.{Mesh, Net, OsProcess, Target}

  @seconds "TIEBEAM_SOAK_SECONDS" |> System.get_env("0") |> String.to_integer()
  @places [:a, :h, :p, :u, :z]
  @groups [:g1, {:g, 2}, "g3"]
  # Half a minute is an age for a mesh of five on one machine.
  @patience 30_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  if @seconds == 0, do: @tag(skip: "a soak runs for TIEBEAM_SOAK_SECONDS")
  @tag timeout: :infinity
  test "check 75: for #{@seconds} s nodes are killed at random: nodes, names, locks and pg members agree" do
    seed = "TIEBEAM_SEED" |> System.get_env("#{System.os_time()}") |> String.to_integer()
    :rand.seed(:exsss, seed)
    # The moments of what happens are the machine's, so a replay is the same plan and not the same run.
    IO.puts("soak: TIEBEAM_SEED=#{seed}")
    names = for place <- @places, into: %{}, do: {place, Net.name("#{place}")}
    # At least one of each kind to begin with.
    kinds =
      for {place, at} <- Enum.with_index(@places),
          do: {place, Enum.at(Target.kinds(), at) || Enum.random(Target.kinds())}

    cluster = for {place, kind} <- kinds, into: %{}, do: {place, start(kind, names[place])}
    now = System.monotonic_time(:millisecond)
    s = %{cluster: cluster, names: %{}, members: %{}, done: %{}, said: now, began: now}
    s |> rest() |> soak(now + @seconds * 1000) |> say()
  end

  defp soak(s, until) do
    if System.monotonic_time(:millisecond) > until do
      s
    else
      s = s |> work() |> trouble(:rand.uniform(5)) |> rest()
      soak(if(System.monotonic_time(:millisecond) - s.said > 60_000, do: say(s), else: s), until)
    end
  end

  # ---- while all is well: names and members come and go

  defp work(s),
    do:
      Enum.reduce(1..20, s, fn _, s ->
        work(Enum.random([:register, :register, :unregister, :die, :join, :join, :leave]), s)
      end)

  defp work(:register, s) do
    place = Enum.random(@places)
    name = {:name, System.unique_integer([:positive])}
    {:yes, pid} = Target.on(s.cluster[place], :global_register, [name])
    %{s | names: Map.put(s.names, name, pid)}
  end

  defp work(:unregister, s) do
    case Enum.take_random(s.names, 1) do
      [] ->
        s

      [{name, _}] ->
        :ok = Target.on(somebody(s), :global_unregister, [name])
        %{s | names: Map.delete(s.names, name)}
    end
  end

  defp work(:die, s) do
    case Enum.take_random(s.names, 1) do
      [] ->
        s

      [{name, pid}] ->
        Process.exit(pid, :kill)
        %{s | names: Map.delete(s.names, name)}
    end
  end

  defp work(:join, s) do
    group = Enum.random(@groups)
    pid = Target.on(somebody(s), :pg_join, [group])
    %{s | members: Map.update(s.members, group, [pid], &[pid | &1])}
  end

  defp work(:leave, s) do
    group = Enum.random(@groups)

    case Enum.take_random(s.members[group] || [], 1) do
      [] ->
        s

      [pid] ->
        owner = Enum.find(Map.values(s.cluster), &(&1.node == node(pid)))
        :ok = Target.on(owner, :pg_leave, [group, pid])
        %{s | members: Map.update!(s.members, group, &List.delete(&1, pid))}
    end
  end

  defp somebody(s), do: s.cluster[Enum.random(@places)]

  # ---- and then, some at once, and without waiting for what follows from one before the next

  # No member leaves a group meanwhile: two BEAMs may tell each other of that before they have told each other their groups, of which
  # OTP's scope dies.
  defp trouble(s, 0), do: s

  defp trouble(s, times) do
    if :rand.uniform(3) == 1, do: Process.sleep(:rand.uniform(1_500))
    what = Enum.random([:kill, :kill, :stop, :freeze, :disconnect, :dial, :dial])
    place = Enum.random(@places)
    s = %{s | done: Map.update(s.done, what, 1, &(&1 + 1))}
    trouble(trouble(what, place, s), times - 1)
  end

  defp trouble(:kill, place, s) do
    Target.kill(s.cluster[place])
    again(s, place)
  end

  defp trouble(:stop, place, s) do
    Target.signal(s.cluster[place], :TERM)
    OsProcess.await_exit(s.cluster[place].process)
    again(s, place)
  end

  defp trouble(:freeze, place, s) do
    Target.signal(s.cluster[place], :STOP)
    Process.sleep(:rand.uniform(2_000))
    Target.signal(s.cluster[place], :CONT)
    s
  end

  defp trouble(:disconnect, place, s) do
    Target.on(s.cluster[place], :erlang, :disconnect_node, [s.cluster[Enum.random(@places -- [place])].node])
    s
  end

  defp trouble(:dial, place, s) do
    Mesh.dial(s.cluster[place], s.cluster[Enum.random(@places -- [place])])
    s
  end

  # A node of the same name takes its place, perhaps of the other kind.
  defp again(s, place) do
    %{node: node, process: process} = s.cluster[place]
    GenServer.stop(process)
    lives = fn pid -> node(pid) != node end

    s = %{
      s
      | names: Map.filter(s.names, fn {_, pid} -> lives.(pid) end),
        members: Map.new(s.members, fn {group, pids} -> {group, Enum.filter(pids, lives)} end),
        cluster: Map.put(s.cluster, place, start(Enum.random(Target.kinds()), node))
    }

    if :rand.uniform(2) == 1, do: Mesh.dial(s.cluster[place], s.cluster[Enum.random(@places -- [place])])
    s
  end

  defp start(kind, node) do
    target = Target.start(kind, node: node)
    # The tests' own node may still have to hear of the end of the last one.
    eventually(fn -> is_pid(Target.try_on(target, :erlang, :whereis, [:pg])) end)
    target
  end

  # ---- at rest, all agree

  defp rest(s) do
    s = whole(s)
    targets = Map.values(s.cluster)
    told = inspect(s, pretty: true, limit: :infinity)

    try do
      eventually(fn -> Enum.all?(targets, &(Mesh.names(&1) == s.names)) end)
    rescue
      ExUnit.AssertionError ->
        flunk("names: #{inspect(for target <- targets, do: {target.node, Mesh.names(target)})}\n#{told}")
    end

    try do
      eventually(fn -> Enum.all?(targets, &(members(&1) == expected(s))) end)
    rescue
      ExUnit.AssertionError ->
        flunk("members: #{inspect(for target <- targets, do: {target.node, members(target)})}\n#{told}")
    end

    s
  end

  defp members(target),
    do: for(group <- @groups, do: {group, Enum.sort(Target.on(target, :pg_members, [group]))})

  defp expected(s), do: for(group <- @groups, do: {group, Enum.sort(s.members[group] || [])})

  # One mesh, and no lock. BEAMs do not find each other again by themselves: whoever misses a node dials it.
  defp whole(s, mended \\ 0) do
    targets = Map.values(s.cluster)

    try do
      eventually(
        fn ->
          dialled?(targets) and Mesh.partitions(targets) == [targets |> Enum.map(& &1.node) |> Enum.sort()]
        end,
        @patience
      )

      Mesh.await_joined(targets)
      %{s | done: Map.update(s.done, :mended, mended, &(&1 + mended))}
    rescue
      error in ExUnit.AssertionError ->
        state =
          for target <- targets,
              do:
                {target.node, Mesh.known(target), Target.on(target, :erlang, :nodes, []), Mesh.locks(target)}

        # A node that dies between two words leaves two that are connected, of which one does not know the other. OTP's protocol cannot
        # mend it, an operator does: but a lock that stays is a failure.
        told = "#{error.message}\n#{inspect(state, pretty: true)}\n#{inspect(s, pretty: true)}"
        if mended == 2 or Enum.any?(targets, &(Mesh.locks(&1) != [])), do: flunk(told)
        IO.puts("soak: mended #{inspect(state)}")

        for one <- targets,
            other <- targets,
            one != other,
            other.node not in Mesh.known(one),
            do: Target.on(one, :erlang, :disconnect_node, [other.node])

        whole(s, mended + 1)
    end
  end

  defp dialled?(targets) do
    missing =
      for one <- targets,
          nodes = Target.on(one, :erlang, :nodes, []),
          other <- targets,
          other != one,
          other.node not in nodes,
          do: {one, other}

    for {one, other} <- missing, do: Mesh.dial(one, other)
    missing == []
  end

  # ---- what is told, every minute

  defp say(s) do
    now = System.monotonic_time(:millisecond)

    memory =
      for {_, %{kind: :rust, process: process}} <- s.cluster,
          {:ok, status} <- [File.read("/proc/#{OsProcess.os_pid(process)}/status")],
          [_, kilobytes] <- [Regex.run(~r/VmRSS:\s+(\d+)/, status)],
          do: div(String.to_integer(kilobytes), 1024)

    members = s.members |> Map.values() |> List.flatten() |> length()
    kinds = for {_, target} <- s.cluster, do: target.kind

    IO.puts(
      "soak: #{div(now - s.began, 1000)} s, #{inspect(s.done)}, now #{inspect(Enum.frequencies(kinds))}, " <>
        "#{map_size(s.names)} names, #{members} members, MiB of the Rust nodes: #{Enum.join(memory, ", ")}"
    )

    %{s | said: now}
  end
end
