defmodule Support.Mesh do
  @moduledoc """
  What `global` must have made of some nodes: who knows whom, the names, the locks.

  The nodes are asked by the tests' own node, which takes no part: its `connect_all` is off.
  """
  import Support.Eventually
  alias Support.{OsProcess, Target}

  @doc "Makes `from` connect to `to`."
  def dial(from, to), do: Target.on(from, :net_kernel, :connect_node, [to.node])

  @doc "Makes all of them one cluster, and waits until they are."
  def join([first | others] = targets) do
    for other <- others, do: true = dial(other, first)
    await_joined(targets)
  end

  @doc "Waits until all know each other, have the same names, and hold no lock; answers after how many milliseconds."
  def await_joined(targets, timeout \\ 60_000) do
    started = System.monotonic_time(:millisecond)
    eventually(fn -> state(targets) == whole(targets) end, timeout)
    System.monotonic_time(:millisecond) - started
  rescue
    error in ExUnit.AssertionError ->
      ExUnit.Assertions.flunk("no mesh: #{error.message}\n#{inspect(state(targets), pretty: true)}")
  end

  @doc """
  The partitions: lists of nodes that know and are connected with each other. `:unsettled` while the nodes do not
  agree, or while there are locks.
  """
  def partitions(targets) do
    all = Enum.map(targets, & &1.node)

    seen =
      for target <- targets,
          do: {target.node, Enum.sort([target.node | known(target) -- known(target) -- all])}

    connected = for target <- targets, do: {target.node, Enum.sort([target.node | connected(target, all)])}
    groups = seen |> Enum.map(&elem(&1, 1)) |> Enum.uniq() |> Enum.sort()

    if seen == connected and Enum.sort(List.flatten(groups)) == Enum.sort(all) and
         Enum.all?(targets, &(locks(&1) == [])),
       do: groups,
       else: :unsettled
  end

  @doc "The partitions, once they have stayed the same for a while."
  def settled(targets, quiet \\ 1_500) do
    groups = eventually(fn -> with :unsettled <- partitions(targets), do: nil end)
    Process.sleep(quiet)
    if partitions(targets) == groups, do: groups, else: settled(targets, quiet)
  end

  @doc "The nodes that `global` on the target knows."
  def known(target), do: call(target, :get_known)

  @doc "The locks on the target."
  def locks(target), do: Target.on(target, :ets, :tab2list, [:global_locks])

  @doc "The table of names of the target: a map from names to pids."
  def names(target) do
    for name <- Target.on(target, :global, :registered_names, []),
        pid = Target.on(target, :global, :whereis_name, [name]),
        is_pid(pid),
        into: %{},
        do: {name, pid}
  end

  @doc "Asks the name server of the target."
  def call(target, request), do: GenServer.call({:global_name_server, target.node}, request, 20_000)

  @doc "Whether the target has said that it removes a node."
  def warned?(target), do: OsProcess.output(target.process) =~ "prevent overlapping partitions"

  defp state(targets) do
    all = Enum.map(targets, & &1.node)

    for target <- targets do
      %{
        node: target.node,
        known: target |> known() |> Enum.sort(),
        connected: target |> connected(all) |> Enum.sort(),
        names: names(target),
        locks: locks(target)
      }
    end
  end

  defp whole([first | _] = targets) do
    all = Enum.map(targets, & &1.node)
    names = names(first)

    for %{node: node} <- targets do
      others = Enum.sort(all -- [node])
      %{node: node, known: others, connected: others, names: names, locks: []}
    end
  end

  defp connected(target, all) do
    nodes = Target.on(target, :erlang, :nodes, [])
    Enum.filter(all, &(&1 in nodes))
  end
end
