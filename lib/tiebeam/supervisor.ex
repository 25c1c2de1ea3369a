defmodule Tiebeam.Supervisor do
  @moduledoc false
  # One cluster: the table that callers read, the reporter and the server, which survive each other. Where there is a disk, a
  # process of its own has it, and the server does not survive that one: it begins anew with what the disk has.

  use Supervisor

  alias Tiebeam.{Options, Reporter, Server, Table}
  alias Tiebeam.Leadership.Store

  @spec start_link(Options.t()) :: Supervisor.on_start()
  def start_link(options) do
    Supervisor.start_link(__MODULE__, options, name: options.name)
  end

  @impl true
  def init(options) do
    Table.new(options.name, options.process, options.metadata)
    reporter = Reporter.new(options.name)
    server = {Server, {options, reporter}}
    Supervisor.init([{Reporter, reporter}, with_disk(server, options)], strategy: :one_for_one)
  end

  defp with_disk(server, options) do
    if Options.leadership?(options) and options.data_dir != :memory do
      children = [{Store, {options.name, options.data_dir}}, server]
      %{id: Store, start: {Supervisor, :start_link, [children, [strategy: :rest_for_one]]}, type: :supervisor}
    else
      server
    end
  end
end
