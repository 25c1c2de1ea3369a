defmodule Support.Link do
  @moduledoc """
  A link between two nodes that can be cut: a port on which one connection is taken, and relayed to a node. The dialling node is given
  the port instead of the other's own.
  """
  use GenServer

  @doc "A link to the port `port`, owned by the test."
  def start(port),
    do:
      ExUnit.Callbacks.start_supervised!(%{
        id: make_ref(),
        start: {GenServer, :start_link, [__MODULE__, port]}
      })

  @doc "The port to dial."
  def port(link), do: GenServer.call(link, :port)

  @doc "Whether the connection is there."
  def up?(link), do: GenServer.call(link, :up?)

  @doc "From now on nothing passes, and nobody is told: as a cable that is pulled."
  def cut(link), do: GenServer.call(link, :cut)

  @doc "Both ends are closed at once: as a router that refuses to go on."
  def break(link), do: GenServer.call(link, :break)

  @impl true
  def init(port) do
    {:ok, listener} = :gen_tcp.listen(0, options())
    {:ok, own} = :inet.port(listener)
    owner = self()

    # One connection, and none after it: what is cut stays so.
    spawn_link(fn ->
      with {:ok, dialled} <- :gen_tcp.accept(listener) do
        :ok = :gen_tcp.controlling_process(dialled, owner)
        send(owner, {:dialled, dialled})
      end
    end)

    {:ok, %{target: port, port: own, listener: listener, ends: %{}}}
  end

  defp options, do: [:binary, ip: {127, 0, 0, 1}, active: false, nodelay: true]

  @impl true
  def handle_call(:port, _, s), do: {:reply, s.port, s}
  def handle_call(:up?, _, s), do: {:reply, map_size(s.ends) == 2, s}
  def handle_call(:cut, _, s), do: {:reply, :ok, %{s | ends: %{}}}

  def handle_call(:break, _, s) do
    for {socket, _} <- s.ends, do: :gen_tcp.close(socket)
    {:reply, :ok, %{s | ends: %{}}}
  end

  @impl true
  def handle_info({:dialled, dialled}, s) do
    :gen_tcp.close(s.listener)
    {:ok, onward} = :gen_tcp.connect({127, 0, 0, 1}, s.target, options())
    for socket <- [dialled, onward], do: :ok = :inet.setopts(socket, active: true)
    {:noreply, %{s | ends: %{dialled => onward, onward => dialled}}}
  end

  def handle_info({:tcp, socket, bytes}, s) do
    if other = s.ends[socket], do: :gen_tcp.send(other, bytes)
    {:noreply, s}
  end

  def handle_info({:tcp_closed, socket}, s) do
    if other = s.ends[socket], do: :gen_tcp.close(other)
    {:noreply, s}
  end

  def handle_info({:tcp_error, _, _}, s), do: {:noreply, s}
end
