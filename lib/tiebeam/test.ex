defmodule Tiebeam.Test do
  @moduledoc """
  Clusters of real nodes in the tests of an application: started on this machine, cut apart, frozen, killed, and gone when the test ends.

      defmodule MyApp.ClusterTest do
        use ExUnit.Case, async: true
        import Tiebeam.Test

        test "the others take over" do
          [a, b, c] = start_cluster(3, name: MyApp.Cluster, options: [voters: :all], children: [MyApp.Counter])
          assert_registered(MyApp.Cluster, "counter", on: [a, b, c])

          partition(a, [b, c])
          leader = assert_leader(MyApp.Cluster, on: [b, c])
          assert leader in [b.node, c.node]

          heal([a, b, c])
          kill_node(c)
          assert_members(MyApp.Cluster, [a, b], on: [a, b])
          assert call(a, MyApp.Counter, :value, []) == 0
        end
      end

  The nodes are programs of their own on loopback, with an epmd and a cookie of their own: they meet neither the nodes of the machine nor
  those of another test run, and tests with clusters may be `async: true`. The VM of the tests takes no part, and needs no
  distribution: a BEAM node is steered over its standard input and output (OTP's `:peer`), so it can be asked anything while it is cut off.
  What a node runs must be compiled to files: modules of the application and of `test/support`, but not those in an `.exs` file, and no anonymous functions of
  these.

  For most tests of an application no second node is needed: a cluster of one runs without distribution, in the VM of the tests.

  ## What is simulated, and what is not

  - `partition/2` gives the nodes of two sides different cookies for each other and disconnects them. Both sides notice at once, as when a
    switch refuses; new connections are refused until `heal/1`. It is no silent loss, where nothing arrives and nobody is told: for the
    time until that is noticed see `pause_node/2`. Two Rust nodes cannot be parted so, because only BEAM nodes are asked to; put a BEAM node
    on one of the two sides.
  - `pause_node/2` stops the program (SIGSTOP): its connections stay, and it does not answer, as a machine that hangs, or a virtual one that
    migrates. What it believed before, it believes when it goes on.
  - `kill_node/1` is a crash (SIGKILL): its connections are closed by the system. A machine that loses its power closes nothing: pause
    it first.
  - All nodes have one clock. OTP's `prevent_overlapping_partitions` is off unless `:args` of a node say otherwise, because it would part nodes of one side
    while the cut is made.

  ## In Rust

  Several `Node`s run in one process, so a test starts what it needs with `Node::start` and drops it; no kit is needed for that.
  """

  # It is part of Elixir, and loaded where there are tests.
  @compile {:no_warn_undefined, [ExUnit.Assertions, ExUnit.Callbacks]}

  alias Tiebeam.{Command, Group, Leader, Leadership, Registry}
  alias Tiebeam.Test.{Epmd, Node, Pause}

  @typedoc "Nodes: one, or a list."
  @type nodes :: Node.t() | [Node.t()]

  @host "127.0.0.1"

  # A busy machine takes seconds to start a VM.
  @start_timeout 120_000
  @call_timeout 60_000

  # How long what is asserted may take, if nothing else is said, in milliseconds.
  @within 5_000
  @pause 10

  # So much output of a Rust node is kept to tell why it did not start.
  @kept_lines 100

  @node_options [
    name: nil,
    prefix: "beam",
    cookie: nil,
    children: [],
    applications: [],
    config: [],
    env: %{},
    args: [],
    logger_level: :emergency
  ]

  @rust_options [
    name: nil,
    prefix: "rust",
    cookie: nil,
    join: [],
    program: nil,
    args: [],
    env: %{},
    ready: ~r/^ready /
  ]

  @doc """
  Starts a BEAM node, which takes part in nothing yet. It ends with the test, or with the module if it was started in `setup_all`.

  Options:

  - `:name` - such as `:"a@127.0.0.1"`. Default: one of its own, which begins with `:prefix`.
  - `:cookie` - an atom. Default: one for all nodes of this VM.
  - `:applications` - are started, with `:tiebeam`. Each has the environment that it has in the VM of the tests: a node reads no `config/*.exs`.
  - `:config` - more of that, such as `[my_app: [port: 0]]`.
  - `:children` - child specifications, started under a supervisor of their own in this order, and stopped in good order by `stop_node/1`.
  - `:env` - variables, a map of strings; `:args` - more arguments of `erl`, strings.
  - `:logger_level` - of the messages that it writes to the output of the tests. Default: `:emergency`.
  """
  @spec start_node(keyword) :: Node.t()
  def start_node(options \\ []) do
    options = Leadership.options!(options, @node_options)
    name = options.name || unique_name(options.prefix)
    cookie = options.cookie || cookie()
    [alive, host] = name |> Atom.to_string() |> String.split("@")

    args =
      [
        "-setcookie",
        "#{cookie}",
        "-start_epmd",
        "false",
        "-kernel",
        "prevent_overlapping_partitions",
        "false"
      ] ++
        ["-kernel", "logger_level", "#{options.logger_level}"] ++
        Enum.flat_map(code_paths(), &["-pa", &1]) ++ options.args

    env = Map.put(options.env, "ERL_EPMD_PORT", "#{Epmd.port()}")

    peer_options = %{
      name: to_charlist(alive),
      host: to_charlist(host),
      longnames: String.contains?(host, "."),
      connection: :standard_io,
      wait_boot: @start_timeout,
      args: Enum.map(args, &to_charlist/1),
      env: for({key, value} <- env, do: {to_charlist(key), to_charlist(value)})
    }

    peer =
      ExUnit.Callbacks.start_supervised!(%{
        id: make_ref(),
        start: {__MODULE__, :start_peer, [peer_options]},
        restart: :temporary,
        shutdown: 10_000
      })

    os_pid = peer |> :peer.call(:os, :getpid, []) |> List.to_integer()
    node = %Node{node: name, kind: :beam, cookie: cookie, process: peer, os_pid: os_pid}

    configure(
      node,
      for(application <- options.applications, do: {application, Application.get_all_env(application)})
    )

    configure(node, options.config)

    for application <- [:tiebeam | options.applications],
        do: {:ok, _} = call(node, Application, :ensure_all_started, [application])

    :ok = call(node, __MODULE__, :start_supervisor, [])
    for child <- options.children, do: start_child(node, child)
    node
  end

  @doc false
  def start_peer(options) do
    with {:ok, peer, _node} <- :peer.start_link(options), do: {:ok, peer}
  end

  # Before an application is loaded, and to stay when it is.
  defp configure(node, config), do: call(node, Application, :put_all_env, [config, [persistent: true]])

  # On the node, where it outlives the call.
  @doc false
  def start_supervisor do
    {:ok, supervisor} = Supervisor.start_link([], strategy: :one_for_one, name: __MODULE__.Supervisor)
    Process.unlink(supervisor)
    :ok
  end

  @doc """
  Starts a Rust node, and waits until it says that it is ready. The options `:name`, `:cookie` and `:env` are those of `start_node/1`. Others:

  - `:program` - the path of the program `tiebeam`, or of one of your own. Required.
  - `:args` - more arguments; or a function of `%{node: node, cookie: cookie, join: nodes}` that answers all of them, for a program of your own. Such a program finds
    its epmd by the variable `ERL_EPMD_PORT`, as every node does.
  - `:join` - the nodes that it looks for, or their names.
  - `:ready` - matches the line that says it is ready, a regular expression. Default: that of `tiebeam node`.
  """
  @spec start_rust_node(keyword) :: Node.t()
  def start_rust_node(options) do
    options = Leadership.options!(options, @rust_options)

    unless is_binary(options.program) and File.exists?(options.program),
      do:
        raise(
          ArgumentError,
          "the option :program must be the path of a program that is there, got: #{inspect(options.program)}"
        )

    name = options.name || unique_name(options.prefix)
    cookie = options.cookie || cookie()
    env = Map.put(options.env, "ERL_EPMD_PORT", "#{Epmd.port()}")
    lines = ExUnit.Callbacks.start_supervised!(%{id: make_ref(), start: {Agent, :start_link, [fn -> [] end]}})

    command =
      ExUnit.Callbacks.start_supervised!(
        %{
          Command.child_spec(
            run: [options.program | rust_args(options, name, cookie)],
            env: env,
            grace: 5_000,
            log: fn line -> Agent.update(lines, &Enum.take([line | &1], @kept_lines)) end
          )
          | id: make_ref()
        }
        |> Map.put(:restart, :temporary)
      )

    eventually(
      fn -> not Process.alive?(command) or Enum.any?(Agent.get(lines, & &1), &(&1 =~ options.ready)) end,
      within: @start_timeout
    )

    unless Process.alive?(command) do
      output = lines |> Agent.get(& &1) |> Enum.reverse() |> Enum.join("\n")
      ExUnit.Assertions.flunk("#{name} ended before it was ready:\n#{output}")
    end

    %Node{
      node: name,
      kind: :rust,
      cookie: cookie,
      process: command,
      os_pid: Command.os_pid(command)
    }
  end

  defp rust_args(%{args: args} = options, name, cookie) when is_function(args, 1),
    do: args.(%{node: name, cookie: cookie, join: names(options.join)})

  defp rust_args(options, name, cookie) do
    ["node", "--name", "#{name}", "--cookie", "#{cookie}", "--epmd", "client"] ++
      Enum.flat_map(names(options.join), &["--join", "#{&1}"]) ++ options.args
  end

  @doc """
  Starts nodes that form a cluster, and waits until each of them sees all of them alive. So many BEAM nodes, or a list of kinds, such as
  `[:beam, :beam, :rust]`, with a BEAM node at least.

  Options:

  - `:name` - the name of the cluster on the BEAM nodes. Required.
  - `:options` - other options of `Tiebeam.start_link/1`. `voters: :all` names all of these nodes. The profile is `:fast`, if nothing else is said.
  - `:children` - are started on each BEAM node after the cluster.
  - `:program` - of the Rust nodes; `:rust_args` - more arguments of theirs. Required where there are Rust nodes.
  - `:cookie`, `:applications`, `:config`, `:env`, `:args`, `:logger_level` - as for `start_node/1`; but for the first one they are those of the BEAM nodes.
  """
  @spec start_cluster(pos_integer | [:beam | :rust], keyword) :: [Node.t()]
  def start_cluster(kinds, options) do
    kinds = if is_integer(kinds), do: List.duplicate(:beam, kinds), else: kinds

    {cluster, node_options} = Keyword.split(options, [:name, :options, :children, :program, :rust_args])

    name = cluster[:name] || raise ArgumentError, "the option :name is required: that of the cluster"
    :beam in kinds || raise ArgumentError, "a cluster needs a BEAM node, which is asked about the others"

    names = for {kind, index} <- Enum.with_index(kinds, 1), do: unique_name("#{kind}#{index}")
    settings = cluster_options(cluster[:options] || [], names)
    children = [{Tiebeam, [name: name] ++ settings} | cluster[:children] || []]

    nodes =
      for {kind, node} <- Enum.zip(kinds, names) do
        case kind do
          :beam ->
            start_node([name: node, children: children] ++ node_options)

          :rust ->
            args = rust_cluster_args(settings) ++ (cluster[:rust_args] || [])

            start_rust_node(
              name: node,
              program: cluster[:program],
              join: settings[:join] -- [node],
              cookie: node_options[:cookie],
              args: args
            )
        end
      end

    assert_members(name, nodes, on: nodes, within: @start_timeout)
    nodes
  end

  defp cluster_options(options, names) do
    options
    |> Keyword.put_new(:profile, :fast)
    |> Keyword.put_new(:join, names)
    |> Keyword.replace_lazy(:voters, &if(&1 == :all, do: names, else: &1))
  end

  defp rust_cluster_args(settings) do
    voters = Enum.map_join(settings[:voters] || [], ",", &to_string/1)

    ["--profile", "#{settings[:profile]}"] ++
      if(settings[:cluster], do: ["--cluster", settings[:cluster]], else: []) ++
      if(settings[:expect], do: ["--expect", "#{settings[:expect]}"], else: []) ++
      if(voters == "", do: [], else: ["--voters", voters])
  end

  @doc "Starts a child on a BEAM node, after those that it has, and answers its pid."
  @spec start_child(Node.t(), Supervisor.child_spec() | {module, term} | module) :: pid
  def start_child(node, child) do
    case call(node, Supervisor, :start_child, [__MODULE__.Supervisor, Supervisor.child_spec(child, [])]) do
      {:ok, pid} ->
        pid

      {:error, reason} ->
        ExUnit.Assertions.flunk("#{node.node} does not start #{inspect(child)}: #{inspect(reason)}")
    end
  end

  @doc """
  Calls a function on a BEAM node, also one that is cut off. What it raises is raised here; blocks for at most `timeout` milliseconds,
  then exits.
  """
  @spec call(Node.t(), module, atom, [term], timeout) :: term
  def call(node, module, function, args, timeout \\ @call_timeout)

  def call(%Node{kind: :beam, process: peer}, module, function, args, timeout),
    do: :peer.call(peer, module, function, args, timeout)

  def call(%Node{kind: :rust, node: node}, _module, _function, _args, _timeout),
    do: raise(ArgumentError, "#{node} is a Rust node, which runs no modules; let a BEAM node ask it")

  @doc """
  Cuts the connections between two sides, and keeps them cut until `heal/1`: see [what is simulated](#module-what-is-simulated-and-what-is-not). Answers
  when no connection is left.
  """
  @spec partition(nodes, nodes) :: :ok
  def partition(side, other) do
    pairs = for a <- List.wrap(side), b <- List.wrap(other), do: {a, b}

    for {%{kind: :rust} = a, %{kind: :rust} = b} <- pairs,
        do:
          raise(
            ArgumentError,
            "#{a.node} and #{b.node} are Rust nodes, which the kit cannot part: one of them must be a BEAM node"
          )

    # All cookies before the first connection is closed: otherwise there would be new ones at once.
    for pair <- both_ways(pairs),
        {%{kind: :beam} = at, of} = pair,
        do: call(at, :erlang, :set_cookie, [of.node, :"cut off by #{at.node}"])

    for {at, of} <- both_ways(pairs), do: call(at, :erlang, :disconnect_node, [of.node])

    eventually(
      fn -> Enum.all?(both_ways(pairs), fn {at, of} -> of.node not in connected(at) end) end,
      within: @call_timeout
    )

    :ok
  end

  @doc "Lets these nodes connect to each other again, and connects them. Answers when they are."
  @spec heal([Node.t()]) :: :ok
  def heal(nodes) do
    pairs = for a <- nodes, b <- nodes, a.node < b.node, do: {a, b}
    for {at, of} <- both_ways(pairs), do: call(at, :erlang, :set_cookie, [of.node, of.cookie])

    eventually(
      fn ->
        Enum.all?(both_ways(pairs), fn {at, of} -> call(at, :net_kernel, :connect_node, [of.node]) == true end)
      end,
      within: @call_timeout
    )

    :ok
  end

  # Those sides that can be asked.
  defp both_ways(pairs) do
    for {a, b} <- pairs, {%{kind: :beam} = at, of} <- [{a, b}, {b, a}], do: {at, of}
  end

  defp connected(node), do: call(node, :erlang, :nodes, [:connected])

  @doc "Kills a node's program, as a crash does. Answers when it is gone; a node of the same name may be started then."
  @spec kill_node(Node.t()) :: :ok
  def kill_node(%Node{process: process} = node) do
    monitor = Process.monitor(process)
    Pause.signal(node.os_pid, :KILL)

    receive do
      {:DOWN, ^monitor, :process, ^process, _reason} -> :ok
    after
      @call_timeout -> ExUnit.Assertions.flunk("#{node.node} is still there after it was killed")
    end
  end

  @doc "Stops a node in good order: its children from the last to the first, so that it leaves the cluster, and then its program."
  @spec stop_node(Node.t()) :: :ok
  def stop_node(%Node{kind: :beam} = node) do
    :ok = call(node, Supervisor, :stop, [__MODULE__.Supervisor, :normal, :infinity], @start_timeout)
    kill_node(node)
  end

  # It leaves when it is sent TERM.
  def stop_node(%Node{kind: :rust, process: command}), do: GenServer.stop(command, :normal, @start_timeout)

  @doc """
  Freezes a node's program, until `resume_node/1`, or until the test ends; or for so many milliseconds, which blocks. It can be asked nothing
  meanwhile.
  """
  @spec pause_node(Node.t(), milliseconds :: non_neg_integer | :infinity) :: :ok
  def pause_node(%Node{os_pid: os_pid} = node, milliseconds \\ :infinity) do
    ExUnit.Callbacks.start_supervised!({Pause, os_pid})

    if milliseconds != :infinity do
      Process.sleep(milliseconds)
      resume_node(node)
    end

    :ok
  end

  @doc "Lets a node go on that was paused."
  @spec resume_node(Node.t()) :: :ok
  def resume_node(%Node{os_pid: os_pid}), do: ExUnit.Callbacks.stop_supervised!({Pause, os_pid})

  @doc """
  Waits until a name is registered, and answers whose it is. Options: `:within`, so many milliseconds (default #{@within}); `:scope`, as in
  `Tiebeam.Registry`; `:on`, the BEAM nodes on which it must be seen, all with the same process (default: this VM).

      iex> :ok = Tiebeam.Registry.register(MyApp.Cluster, "asserted", self())
      iex> Tiebeam.Test.assert_registered(MyApp.Cluster, "asserted", within: 1_000) == self()
      true
  """
  @spec assert_registered(Tiebeam.name(), Registry.name(), keyword) :: pid
  def assert_registered(cluster, name, options \\ []) do
    {options, scope} = with_scope(options)

    agreed(options, {Registry, :whereis, [cluster, name, scope]}, "who has the name #{inspect(name)}", fn
      [pid] when is_pid(pid) -> {:ok, pid}
      _ -> :wait
    end)
  end

  @doc "Waits until a name is registered nowhere. Options as for `assert_registered/3`."
  @spec refute_registered(Tiebeam.name(), Registry.name(), keyword) :: nil
  def refute_registered(cluster, name, options \\ []) do
    {options, scope} = with_scope(options)

    agreed(
      options,
      {Registry, :whereis, [cluster, name, scope]},
      "that nobody has the name #{inspect(name)}",
      fn
        [nil] -> {:ok, nil}
        _ -> :wait
      end
    )
  end

  @doc "Waits until a group has so many members, and answers them, in order. Options as for `assert_registered/3`."
  @spec assert_group(Tiebeam.name(), Registry.name(), count :: non_neg_integer, keyword) :: [pid]
  def assert_group(cluster, group, count, options \\ []) do
    {options, scope} = with_scope(options)

    agreed(options, {Group, :members, [cluster, group, scope]}, "#{count} members of #{inspect(group)}", fn
      [members] when length(members) == count -> {:ok, Enum.sort(members)}
      _ -> :wait
    end)
  end

  @doc """
  Waits until these nodes, or names of nodes, are the members that are alive, and no others. Options: `:within`, and `:on`, the nodes that
  must see it so (default: this VM); Rust nodes are asked by the first BEAM node of the list.
  """
  @spec assert_members(Tiebeam.name(), [Node.t() | node], keyword) :: :ok
  def assert_members(cluster, nodes, options \\ []) do
    names = names(nodes)

    agreed(options, {__MODULE__, :alive, [cluster]}, "that #{inspect(names)} are alive", fn
      [^names] -> {:ok, :ok}
      _ -> :wait
    end)
  end

  @doc false
  def alive(cluster), do: alive_in(Tiebeam.members(cluster))

  @doc false
  def alive_at(node), do: alive_in(GenServer.call({:tiebeam, node}, :members))

  defp alive_in(members), do: Enum.sort(for(%{status: :alive, node: node} <- members, do: node))

  @doc """
  Waits until a leader is known, and answers its name. Options: `:within`, and `:on`, the BEAM nodes that must know of the same one, which is one
  of them (default: this VM).
  """
  @spec assert_leader(Tiebeam.name(), keyword) :: node
  def assert_leader(cluster, options \\ []) do
    among = if options[:on], do: names(options[:on]), else: [node()]

    agreed(options, {Leader, :leader, [cluster]}, "which of #{inspect(among)} leads", fn
      [{:ok, leader, _term}] -> if leader in among, do: {:ok, leader}, else: :wait
      _ -> :wait
    end)
  end

  @doc """
  Waits until `fun` answers neither `nil` nor `false`, and answers that; fails after `:within` milliseconds (default #{@within}).

      iex> Tiebeam.Test.eventually(fn -> 42 end, within: 1_000)
      42
  """
  @spec eventually((() -> answer), keyword) :: answer when answer: term
  def eventually(fun, options \\ []) when is_function(fun, 0) do
    within = Keyword.get(options, :within, @within)
    await(fun, now() + within, fn -> "not true within #{within} ms: #{inspect(fun)}" end)
  end

  defp await(fun, deadline, why) do
    cond do
      value = fun.() ->
        value

      now() >= deadline ->
        ExUnit.Assertions.flunk(why.())

      true ->
        Process.sleep(@pause)
        await(fun, deadline, why)
    end
  end

  defp with_scope(options) do
    {scope, options} = Keyword.split(options, [:scope])
    {options, scope}
  end

  # Until all nodes say the same, and that is what is wanted.
  defp agreed(options, question, what, wanted) do
    options = Leadership.options!(options, within: @within, on: nil)
    nodes = options.on && List.wrap(options.on)

    {:ok, answer} =
      await(
        fn ->
          with :wait <- nodes |> ask_all(question) |> Keyword.values() |> Enum.uniq() |> wanted.(), do: nil
        end,
        now() + options.within,
        fn ->
          "not agreed within #{options.within} ms #{what}: #{inspect(ask_all(nodes, question), pretty: true)}"
        end
      )

    answer
  end

  defp ask_all(nil, {module, function, args}), do: [{node(), apply(module, function, args)}]
  defp ask_all(nodes, question), do: for(node <- nodes, do: {node.node, ask(node, nodes, question)})

  defp ask(%{kind: :beam} = node, _nodes, {module, function, args}), do: call(node, module, function, args)

  # Any node may ask it for its members.
  defp ask(%{kind: :rust} = node, nodes, {__MODULE__, :alive, _args}) do
    case Enum.find(nodes, &(&1.kind == :beam)) do
      nil -> raise ArgumentError, "#{node.node} is a Rust node: add a BEAM node to :on, which asks it"
      beam -> call(beam, __MODULE__, :alive_at, [node.node])
    end
  catch
    :exit, reason -> {:no_answer, reason}
  end

  defp ask(%{kind: :rust, node: node}, _nodes, _question),
    do: raise(ArgumentError, "#{node} is a Rust node, which the kit asks for its members alone")

  defp names(nodes) do
    nodes |> List.wrap() |> Enum.map(&if(is_atom(&1), do: &1, else: &1.node)) |> Enum.sort()
  end

  # Not those of OTP, which a VM has by itself.
  defp code_paths do
    otp = to_string(:code.lib_dir())

    for path <- :code.get_path(),
        path = to_string(path),
        path != ".",
        not String.starts_with?(path, otp),
        do: Path.expand(path)
  end

  defp unique_name(prefix), do: :"#{prefix}_#{System.unique_integer([:positive])}@#{@host}"

  defp cookie, do: :"tiebeam_test_#{System.pid()}"

  defp now, do: System.monotonic_time(:millisecond)
end
