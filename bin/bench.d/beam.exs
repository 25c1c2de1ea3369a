# What a cluster costs a BEAM node: the core behind the NIF, and an idle member. `bin/bench beam`.
#
# SECONDS is how long the idle members are watched (default 20), MEMBERS how many there are (default 8). Processor times are Linux's.

defmodule Bench.Beam do
  alias Tiebeam.Native

  def run do
    steps()
    idle(integer("MEMBERS", 8), integer("SECONDS", 20))
  end

  defp integer(name, default), do: name |> System.get_env("#{default}") |> String.to_integer()

  # One step through the NIF, in a cluster of 64 members.
  defp steps do
    me = core(:a@h)
    [message | _] = for n <- 1..63, do: meet(me, :"n#{n}@h")
    64 = length(Native.view(me))

    IO.puts("one step, 64 members:")
    report("a wake-up with nothing due", fn -> Native.step(me, 2_000, [:woke]) end)
    report("a message of a member", fn -> Native.step(me, 2_000, [message]) end)
    batch = List.duplicate(message, 64)
    report("64 of them", fn -> Native.step(me, 2_000, batch) end)
    report("the view of all members", fn -> Native.view(me) end)
  end

  defp core(node) do
    {:ok, core} =
      Native.new(%{
        node: node,
        creation: 1,
        incarnation: 1,
        cluster: "default",
        join: [],
        seed: 1,
        metadata: "",
        evict: false,
        entries_per_scope: 1024,
        timing: Native.timing(:lan),
        leadership: nil
      })

    Native.step(core, 0, [:woke])
    core
  end

  # Introduces another core; answers the last message of that one as an event.
  defp meet(me, node) do
    {_, _} = Native.step(me, 1_000, [{:connected, node, true}])
    {actions, _} = Native.step(core(node), 1_000, [{:connected, :a@h, true}])
    events = for {:send, :a@h, bytes} <- actions, do: {:received, node, bytes}
    Native.step(me, 1_000, events)
    List.last(events)
  end

  # The median of five rounds: other programs run, too.
  defp report(what, fun) do
    count = 20_000
    rounds = for _ <- 1..5, do: elem(:timer.tc(fn -> for(_ <- 1..count, do: fun.()) end), 0) / count
    line(what, rounds |> Enum.sort() |> Enum.at(2), "µs")
  end

  defp line(what, value, unit) do
    value = value |> :erlang.float_to_binary(decimals: 3) |> String.pad_leading(9)
    IO.puts("  #{String.pad_trailing(what, 28)} #{value} #{unit}")
  end

  # Members that have nothing to say to each other but what failure detection says.
  defp idle(members, seconds) do
    IO.puts("idle, #{members} BEAM members on this machine, #{seconds} s each:")

    for profile <- [nil, :lan, :fast] do
      peers = for n <- 1..members, do: start(n)
      nodes = for {_, node} <- peers, do: node
      for {_, node} <- peers, other <- nodes, do: :erpc.call(node, Node, :connect, [other])
      if profile, do: for({_, node} <- peers, do: join(node, profile, members))
      Process.sleep(3_000)
      before = for {_, node} <- peers, do: cpu(node)
      Process.sleep(seconds * 1000)
      used = for {{_, node}, before} <- Enum.zip(peers, before), do: cpu(node) - before
      for {peer, _} <- peers, do: :peer.stop(peer)
      percent = Enum.sum(used) / members / seconds / 1.0e9 * 100

      line(
        if(profile, do: "profile #{inspect(profile)}", else: "without a cluster"),
        percent,
        "% of a core per node"
      )
    end
  end

  defp start(n) do
    paths =
      for path <- :code.get_path(), Path.basename(Path.dirname(path)) in ~w(elixir logger tiebeam), do: path

    # They are stopped one by one, which is no partition.
    settings = [
      ~c"-setcookie",
      Atom.to_charlist(Node.get_cookie()),
      ~c"-kernel",
      ~c"prevent_overlapping_partitions",
      ~c"false"
    ]

    args = settings ++ Enum.flat_map(paths, &[~c"-pa", &1])
    {:ok, peer, node} = :peer.start(%{name: ~c"bench#{n}", host: ~c"127.0.0.1", longnames: true, args: args})
    {peer, node}
  end

  defp join(node, profile, members) do
    {:ok, _} = :erpc.call(node, Application, :ensure_all_started, [:tiebeam])
    spec = Tiebeam.child_spec(name: Bench.Cluster, profile: profile)
    {:ok, _} = :erpc.call(node, :supervisor, :start_child, [:kernel_safe_sup, spec])
    await(fn -> length(:erpc.call(node, Tiebeam, :members, [Bench.Cluster])) >= min(members, 2) end)
  end

  defp await(fun), do: fun.() || (Process.sleep(50) && await(fun))

  # Nanoseconds of processor time, of all threads.
  defp cpu(node) do
    files = Path.wildcard("/proc/#{:erpc.call(node, :os, :getpid, [])}/task/*/schedstat")
    Enum.sum(for file <- files, do: file |> File.read!() |> String.split(" ") |> hd() |> String.to_integer())
  end
end

Bench.Beam.run()
