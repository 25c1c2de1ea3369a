defmodule Support.RustMember do
  @moduledoc "Rust nodes that take part in a cluster: the program `tiebeam`, as an operator runs it."
  alias Support.{Net, OsProcess, RustPeer}
  alias Tiebeam.Member

  @doc "Starts one and waits until it is ready. Options: `:join` (a list of nodes), `:cluster`, `:args`."
  def start(node, opts \\ []) do
    args =
      ["node", "--name", to_string(node), "--cookie", Net.cookie(), "--epmd", "client"] ++
        Enum.flat_map(opts[:join] || [], &["--join", to_string(&1)]) ++
        if(opts[:cluster], do: ["--cluster", opts[:cluster]], else: []) ++ (opts[:args] || [])

    command = {OsProcess, {RustPeer.program(), args, label: "tiebeam #{node}"}}
    process = ExUnit.Callbacks.start_supervised!(command)
    {:ok, _} = OsProcess.await_line(process, RustPeer.ready_line())
    %{node: node, process: process, kind: :rust}
  end

  @doc "Its view, asked over distribution as any node may ask."
  def members(%{node: node}), do: GenServer.call({:tiebeam, node}, :members)

  def alive(peer), do: for(%Member{status: :alive, node: node} <- members(peer), do: node)

  def status(peer, %{node: node}) do
    Enum.find_value(members(peer), fn member -> if member.node == node, do: member.status end)
  end
end
