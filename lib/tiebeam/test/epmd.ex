defmodule Tiebeam.Test.Epmd do
  @moduledoc false
  # The port mapper of all nodes that tests of this VM start: on a port of its own, so that they meet neither the nodes of the machine
  # nor those of another test run. It starts with the first node, and ends with the VM.

  use GenServer

  alias Tiebeam.Command

  # How long it may take to answer on a machine that is busy, in milliseconds.
  @timeout 60_000
  @pause 20

  @doc "Its port."
  @spec port() :: :inet.port_number()
  def port do
    case GenServer.start(__MODULE__, [], name: __MODULE__) do
      {:ok, epmd} -> GenServer.call(epmd, :port, @timeout)
      {:error, {:already_started, epmd}} -> GenServer.call(epmd, :port, @timeout)
    end
  end

  @impl true
  def init([]), do: {:ok, nil, {:continue, :start}}

  @impl true
  def handle_continue(:start, nil) do
    port = free_port()
    # It exits with this process, which nobody ends before the VM does.
    {:ok, _command} =
      Command.start_link(run: [program(), "-port", "#{port}", "-address", "127.0.0.1"], log: false)

    await(port, System.monotonic_time(:millisecond) + @timeout)
    {:noreply, port}
  end

  @impl true
  def handle_call(:port, _from, port), do: {:reply, port, port}

  defp await(port, deadline) do
    case :gen_tcp.connect({127, 0, 0, 1}, port, [], 1_000) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, reason} ->
        if System.monotonic_time(:millisecond) > deadline, do: exit({:no_epmd, port, reason})
        Process.sleep(@pause)
        await(port, deadline)
    end
  end

  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  # It comes with the VM, if not in PATH.
  defp program do
    System.find_executable("epmd") ||
      [:code.root_dir(), "erts-*", "bin", "epmd"] |> Path.join() |> Path.wildcard() |> List.first() ||
      raise "there is no epmd in PATH nor beside the VM; it is part of Erlang/OTP"
  end
end
