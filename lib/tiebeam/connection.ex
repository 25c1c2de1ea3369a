defmodule Tiebeam.Connection do
  @moduledoc false
  # What the server does with connections of this node: nothing here dials, and nothing waits for another process.

  @doc """
  How much was received over the connection to `node`, in a unit of its own; `nil` where that cannot be known.

  A connection over TCP is a port, whose driver counts bytes. One over TLS is a process; the VM counts the packets that
  it hands in (`erlang:dist_get_stat/1`, in the manual under "How to implement an alternative carrier"), and
  `net_kernel` keeps the handle to ask with in its table.
  """
  @spec received(node) :: non_neg_integer | nil
  def received(node) do
    case List.keyfind(:erlang.system_info(:dist_ctrl), node, 0) do
      {^node, port} when is_port(port) -> received_bytes(port)
      {^node, pid} when is_pid(pid) -> received_packets(node)
      nil -> nil
    end
  end

  defp received_bytes(port) do
    case :inet.getstat(port, [:recv_oct]) do
      {:ok, [recv_oct: bytes]} -> bytes
      {:error, _closed} -> nil
    end
  end

  defp received_packets(node) do
    handle = :ets.lookup_element(:sys_dist, node, 3)
    {:ok, packets, _sent, _pending} = :erlang.dist_get_stat(handle)
    packets
  rescue
    # The connection is gone, or this release of OTP keeps its table otherwise.
    _error in [ArgumentError, MatchError] -> nil
  end

  @doc """
  Asks the kernel of `node` whether it lives, as `net_adm:ping/1` does, but without waiting for the answer, which is
  `{reference, :yes}` in the caller's mailbox.
  """
  @spec ask(node) :: reference
  def ask(node) do
    reference = make_ref()
    question = {:"$gen_call", {self(), reference}, {:is_auth, node()}}
    # One that is lost on a busy link is not answered: how much comes over that link says then who lives.
    :erlang.send({:net_kernel, node}, question, [:noconnect, :nosuspend])
    reference
  end

  @doc "Makes `at` close its connection to `node`. May wait for the connection to `at`, never dials."
  @spec disconnect_at(node, node) :: :ok
  def disconnect_at(at, node) do
    if at in Node.list(:connected), do: :erpc.cast(at, :erlang, :disconnect_node, [node])
    :ok
  end
end
