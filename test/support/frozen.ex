defmodule Support.Frozen do
  @moduledoc "A program that stands still for as long as this process lives."
  use GenServer

  alias Support.OsProcess

  def child_spec(os_pid) do
    %{id: {__MODULE__, os_pid}, start: {GenServer, :start_link, [__MODULE__, os_pid]}, restart: :temporary}
  end

  @impl true
  def init(os_pid) do
    Process.flag(:trap_exit, true)
    OsProcess.send_signal(os_pid, :STOP)
    {:ok, os_pid}
  end

  @impl true
  def terminate(_reason, os_pid), do: OsProcess.send_signal(os_pid, :CONT)
end
