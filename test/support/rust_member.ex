defmodule Support.RustMember do
  @moduledoc "Rust nodes that take part in a cluster: the program `tiebeam`, as an operator runs it."
  alias Support.{Net, OsProcess, RustPeer}
  alias Tiebeam.Member

  @doc """
  Starts one and waits until it is ready. Options: `:join` (a list of nodes), `:cluster`, `:args`,
  `:through` (a command with arguments that runs the program).
  """
  def start(node, opts \\ []) do
    args =
      ["node", "--name", to_string(node), "--cookie", Net.cookie(), "--epmd", "client"] ++
        Enum.flat_map(opts[:join] || [], &["--join", to_string(&1)]) ++
        if(opts[:cluster], do: ["--cluster", opts[:cluster]], else: []) ++ (opts[:args] || [])

    [command | args] = (opts[:through] || []) ++ [RustPeer.program() | args]
    process = ExUnit.Callbacks.start_supervised!({OsProcess, {command, args, label: "tiebeam #{node}"}})
    {:ok, _} = OsProcess.await_line(process, RustPeer.ready_line())
    %{node: node, process: process, kind: :rust}
  end

  @doc "Its view, asked over distribution as any node may ask."
  def members(peer), do: ask(peer, :members)

  @doc """
  Asks it anything. Over a hidden connection: a visible one would make the tests' own node a member, one without Tiebeam.
  """
  def ask(%{node: node}, request) do
    :net_kernel.hidden_connect_node(node)
    GenServer.call({:tiebeam, node}, request, 30_000)
  end

  def alive(peer), do: for(%Member{status: :alive, node: node} <- members(peer), do: node)

  def status(peer, %{node: node}) do
    Enum.find_value(members(peer), fn member -> if member.node == node, do: member.status end)
  end
end
